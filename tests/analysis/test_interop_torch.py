"""The lines of PyTorch that are written beside a lane's parameters."""

import importlib.util

import pytest

from sae_jax.analysis.interop import torch as exported
from tests.analysis.test_interop_saelens import LANES, LINEAR, X, Y, lane_of
from tests.parity.test_parity import close

CASES = [
    *LANES,
    ("abs_topk", {"k": 3, "rescale": True}, "none"),
    ("matching_pursuit", {"k": 5, "stop_at_repeat": True, "residual_threshold": 1.0}, "standardize"),
    ("classic", {}, "ufldl"),
    ("topk", {"targets": Y, "k": 3, "rescale": True, "skip": True}, "standardize"),
    ("gated", {"targets": Y}, "length"),
    ("classic", {"activation": "tanh", "output": "linear", "k": 3}, "unit"),
    ("classic", LINEAR | {"activation": "capped_relu"}, "standardize"),
]
every_case = pytest.mark.parametrize(
    ("model", "settings", "normalize"), CASES, ids=lambda value: "" if isinstance(value, dict) else value
)


@every_case
def test_the_lines_are_few_and_python(model, settings, normalize, tmp_path):
    lines = exported.save(lane_of(model, settings, normalize, tmp_path), tmp_path / "lane.safetensors")
    compile(lines, "loader", "exec")
    assert len(lines.splitlines()) <= 29 and "lane.safetensors" in lines


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not there")
@every_case
def test_they_encode_and_decode_as_the_lane_does(model, settings, normalize, tmp_path, monkeypatch):
    import torch

    lane = lane_of(model, settings, normalize, tmp_path)
    lines = exported.save(lane, tmp_path / "lane.safetensors")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    x = torch.from_numpy(X)
    codes = names["encode"](x)
    if "reconstruct" in names:
        rebuilt = names["reconstruct"](x)
    elif "means" in names and not lane.transcodes:
        rebuilt = names["decode"](codes, names["means"](x))
    else:
        rebuilt = names["decode"](codes)
    close(codes.numpy(), lane.encode(X), 1e-5)
    close(rebuilt.numpy(), lane.reconstruct(X), 1e-5)

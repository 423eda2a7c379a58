"""Models whose only parameters along input are weights, as [unit, input] or as [input, unit]: no bias is needed."""

import json

import numpy as np
import pytest

import sae_jax
from sae_jax.commands import encode, evaluate, merge, report, sweep, units
from sae_jax.plugins import load
from sae_jax.storage import results
from tests.commands.test_plugins import refused
from tests.plugins.files import forgotten

TEXT = """
import jax
import jax.numpy as jnp
from sae_jax import Model, Term
from sae_jax.models import base, linear
from sae_jax.models.base import Parameter

ROWS = {name: one for name, one in linear.TWO_LAYERS.items() if name.endswith("weight")}

def loss(encode, decode):
    def of(p, memory, step, s):
        errors = jnp.square(decode(p, encode(p, step.x, s), s) - step.target)
        return {"reconstruction": jnp.mean(jnp.sum(errors, axis=1))}, None
    return of

def made(name, parameters, init, encode, decode):
    return Model(name=name, Settings=base.Settings, parameters=lambda s: parameters, init=init, encode=encode,
        decode=decode, active=lambda codes, s: codes > 0, active_rule=lambda s: "code > 0",
        terms=lambda s: {"reconstruction": Term("squared error", "1")}, loss=loss(encode, decode))

PARTS = {
    "rows": made("rows", ROWS,
        lambda key, d, s: {n: one for n, one in linear.uniform_weights(key, d, s.d_hidden).items() if n in ROWS},
        lambda p, x, s: jax.nn.relu(x @ p["encoder_weight"].T), lambda p, codes, s: codes @ p["decoder_weight"]),
    "columns": made("columns", {"weight": Parameter(("input", "unit"), "weight")},
        lambda key, d, s: {"weight": jax.random.normal(key, (d, s.d_hidden)) / 8},
        lambda p, x, s: jax.nn.relu(x @ p["weight"]), lambda p, codes, s: codes @ p["weight"].T),
}
"""
DIGITS = ["--dataset", "digits", "--samples", "80", "--batch-size", "20", "--steps", "5", "--seeds", "2"]


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A folder with runs of both models: of 3 and 5 units, of 7, and of all of these."""
    folder = tmp_path_factory.mktemp("widths")
    (folder / "parts.py").write_text(TEXT)
    with forgotten(), pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for model in ("rows", "columns"):
            words = ["--plugin", "parts.py", *DIGITS, "--model", model, "--report", "False", "--figures", "False"]
            sweep.main([*words, "--d-hidden", "3", "5", "--name", model])
            sweep.main([*words, "--d-hidden", "7", "--name", f"{model}-wide"])
            merge.main([f"runs/{model}", f"runs/{model}-wide", *words[:2], "--name", f"{model}-both"])
    return folder


@pytest.mark.parametrize("model", ["rows", "columns"])
def test_a_model_without_a_bias_is_trained_evaluated_encoded_and_merged(model, typed, monkeypatch, capsys):
    monkeypatch.chdir(typed)
    run, plugin = f"runs/{model}-both", ["--plugin", "parts.py"]
    evaluate.main([run, *plugin, "--task", "denoising", "--noise", ".1"])
    assert np.all(np.isfinite(results.load(run)["denoising_psnr"]))
    report.main([run, *plugin])
    encode.main([run, *plugin, "--lane", "d-hidden=5", "seed=1", "--out", "codes.npz"])
    lane = sae_jax.open(run).lane(d_hidden=5, seed=1)
    assert (lane.d_in, np.load("codes.npz")["codes"].shape) == (64, (1797, 5))
    samples = np.asarray(sae_jax.data.read(sae_jax.DataConfig(dataset="digits")).samples[:80], np.float32)
    weight = lane.params["encoder_weight"].T if model == "rows" else lane.params["weight"]
    np.testing.assert_allclose(lane.encode(samples), np.maximum(samples @ weight, 0), rtol=1e-3, atol=1e-4)
    lane.save("lane.safetensors")
    np.testing.assert_array_equal(sae_jax.load_lane("lane.safetensors").encode(samples), lane.encode(samples))
    sweep.main(
        [*plugin, "--start-from", f"runs/{model}", "--steps", "3", "--figures", "False", "--name", f"{model}-on"]
    )
    assert json.loads(results.load(f"runs/{model}-on").attrs["config"])["model"] == model
    if model == "rows":
        units.main([run, *plugin])
        assert results.load(run)["units_nearest"].sizes["unit"] == 7
    else:
        said = refused(units.main, run, *plugin, capsys=capsys)
        assert said == "error: units need decoder rows: got a model without decoder_weight; use another model\n"


@pytest.fixture(autouse=True)
def loaded(typed):
    load(typed / "parts.py")


@pytest.mark.parametrize("model", ["rows", "columns"])
@pytest.mark.parametrize("split", ["data_parallel", "unit_parallel"])
def test_devices_split_it(model, split, samples):
    words = {"d_hidden": 4, "steps": 5, "batch_size": 16, "progress": False, "devices": 2}
    alone, parted = (sae_jax.sweep(samples, model, **words, **more) for more in ({}, {split: 2}))
    for name in alone.data_vars:
        np.testing.assert_allclose(parted[name], alone[name], rtol=1e-4, atol=1e-5)

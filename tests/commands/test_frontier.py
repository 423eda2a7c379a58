"""The command frontier: several architectures at several sparsities, in one run."""

import numpy as np
import pytest

from sae_jax.commands import frontier
from sae_jax.commands.flags import parse
from sae_jax.models.presets import preset
from sae_jax.storage import results

WORDS = ["--model", "relu", "topk", "jumprelu", "--target-l0", "2", "3", "--steps", "40", "--batch-size", "32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    frontier.main([*WORDS, "--seeds", "2", "--runs", str(place), "--name", "f"])
    return place / "f"


def test_its_run_is_one_array_over_architectures_targets_and_seeds(run):
    dataset = results.load(run)
    assert dict(dataset["eval_l0"].sizes) == {"model": 3, "target_l0": 2, "seed": 2}
    np.testing.assert_allclose(dataset["eval_l0"].sel(model="topk"), [[2, 2], [3, 3]], atol=0.15)
    for name in ("truth_mcc", "truth_f1"):
        assert dataset[name].dims == ("model", "target_l0", "seed") and np.isfinite(dataset[name]).all()
    assert (run / "figures/frontier.png").stat().st_size > 10_000
    assert dataset["dataset"].item() == "superposition" and dataset["batch_size"].item() == 32


def test_it_is_resumed_to_the_same_bytes(run):
    before = (run / "results.nc").read_bytes()
    (run / "results.nc").unlink()
    (run / "params.safetensors").unlink()
    (run / "unfinished").mkdir()
    frontier.main(["--resume", str(run)])
    assert (run / "results.nc").read_bytes() == before


def test_a_preset_gives_way_to_flags_beside_it():
    words = ["--preset", "gao", "--rows", "free", "--k", "3", "4"]
    _, settings, seeds = parse(words, "sweep", "", {"d_hidden": (7,), "aux": (9.0,)}, several=True)
    model, published = preset("gao")
    changed = {"model": model, **published, "d_hidden": 7, "rows": "free", "k": (3.0, 4.0)}
    assert settings == changed and published["rows"] == "unit" and seeds == 4


def test_an_axis_that_a_preset_does_not_read_is_no_default():
    axes = {"rho": (0.1, 0.2), "target_l0": (2.0, 3.0), "steps": (1, 2)}
    for words, rho in (["makhzani"], None), (["makhzani", "--rho", ".3"], 0.3), (["makhzani", "--beta", "1"], None):
        _, settings, _ = parse(["--preset", *words], "sweep", "", axes, several=True)
        assert settings.get("rho") == rho and settings["steps"] == (1, 2)
    _, settings, _ = parse(["--preset", "anthropic-january"], "frontier", "", axes, several=True)
    assert "target_l0" not in settings
    _, settings, _ = parse(["--preset", "anthropic-january", "gao"], "frontier", "", axes, several=True)
    assert settings["target_l0"] == (2.0, 3.0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "topk", "--target-l0", "65"], "target_l0 must be at most d_hidden: got 65 of 64"),
        (["--model", "topk", "classic", "--l0", ".1"], "--l0 is no setting of model topk or classic"),
        (["--model", "topk", "--target-l0", ".4"], "target_l0 must round to at least 1: got 0.4; use 1, or batch_topk"),
        (["--model", "abs_topk", "--k", ".2", "--target-l0", "0"], "must round to at least 1: got 0.2; use 1, or"),
        (["--model", "topk", "--prefixes", "1/2,1/4"], "prefixes must nest, each wider than the one before"),
        (["--model", "topk", "--prefixes", "drawn:0"], "prefixes that are drawn must be from 1 to 64"),
        (["--model", "jumprelu", "--penalty", "quadratic", "--target-l0", "0"], "penalty quadratic needs a target"),
        (["--model", "topk", "topk"], "model must not name one twice"),
        (["--preset", "gaos"], "unknown preset gaos: did you mean gao?"),
        (
            ["--preset", "gao", "--model", "relu"],
            "a preset says what is trained: got gao beside --model relu; leave one",
        ),
    ],
)
def test_what_no_architecture_can_do_is_refused_in_a_line(words, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        frontier.main(words)
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and reason in line
    assert not (tmp_path / "runs").exists()

"""The commands of docs/grids.md, as a user types them one after another."""

import json
from pathlib import Path

import numpy as np
import pytest

from sae_jax.analysis.tasks import TaskConfig, apply
from sae_jax.commands import merge, sweep, train
from sae_jax.storage import results
from sae_jax.storage.states import load_states
from tests.commands.pages import typed_commands

PAGE = Path(__file__).parents[2] / "docs" / "grids.md"


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The folder of runs after every command of the page, and what each of them printed, by the name of its run."""
    folder = tmp_path_factory.mktemp("grids")
    with typed_commands(PAGE.read_text(), folder) as typed:
        yield folder / "runs", {words[-1]: said for _, words, said in typed}


def test_the_page_has_every_command(typed):
    assert list(typed[1]) == ["small", "pairs", "larger", "first", "longer", "corner", "both"]


def test_pairs_are_one_dimension(typed):
    made = results.load(typed[0] / "pairs")
    assert made["loss"].dims == ("rho_beta", "seed", "step") and "0.02, 3" in made["rho_beta"].values
    assert list(zip(made["rho"].values, made["beta"].values, strict=True)) == [(0.02, 3), (0.05, 1), (0.1, 0.3)]
    assert "6 lanes (3 cells x 2 seeds)" in typed[1]["pairs"]
    np.testing.assert_array_equal(made.swap_dims(rho_beta="rho").sel(rho=0.1)["loss"], made["loss"][2])


def test_an_extension_has_the_whole_grid_and_leaves_the_run_alone(typed):
    small, larger = (results.load(typed[0] / name) for name in ("small", "larger"))
    assert dict(larger.sizes) | {"rho": 3, "beta": 2, "seed": 3} == dict(larger.sizes)
    assert "extending runs/small: 8 lanes taken from it, 10 to train" in typed[1]["larger"]
    assert "the whole equals one training" in typed[1]["larger"]
    there = larger.sel(rho=[0.05, 0.1], seed=[0, 1])
    for name in ("loss", "encoder_weight", "eval_l0", "diverged_at"):
        np.testing.assert_array_equal(there[name], small[name])
    assert np.isfinite(larger["loss"]).all()
    record = json.loads((typed[0] / "larger" / "config.json").read_text())
    assert record["extends"] and record["settings"]["rho"] == [0.02, 0.05, 0.1] and record["settings"]["steps"] == 300


def test_an_extension_that_was_interrupted_is_resumed_to_the_same_bytes(typed):
    folder = typed[0] / "larger"
    before = {name: (folder / name).read_bytes() for name in ("results.nc", "params.safetensors")}
    for name in before:
        (folder / name).unlink()
    (folder / "unfinished").mkdir()
    sweep.main(["--resume", "runs/larger"])
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_run_is_trained_on_from_its_states_and_keeps_its_settings(typed):
    first, longer = (results.load(typed[0] / name) for name in ("first", "longer"))
    assert "parameters, running means and the optimizer go on after step 300" in typed[1]["longer"]
    for name in ("rho", "seed", "d_hidden", "dataset", "batch_size"):
        np.testing.assert_array_equal(longer[name], first[name])
    assert int(longer["steps"]) == 200 and float(longer["learning_rate"]) == 0.001
    np.testing.assert_allclose(longer["loss"][..., 0], first["loss"][..., -1], rtol=0.2)
    assert (longer["eval_explained_variance"] > first["eval_explained_variance"]).all()
    assert (typed[0] / "first" / "state.safetensors").is_file() and not (typed[0] / "longer/state.safetensors").exists()


def test_a_run_on_other_samples_is_evaluated_by_the_statistics_of_the_first_one(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(typed[0].parent)
    rng = np.random.default_rng(0)
    for name, scale in (("first", 1.0), ("other", 3.0)):
        np.save(f"{name}.npy", (scale * rng.normal(size=(300, 9)) + scale).astype(np.float32))
    words = ["--rho", ".1", "--beta", ".1", "--seeds", "1", "--d-hidden", "4", "--output", "linear", "--steps", "20"]
    words += ["--figures", "False", "--report", "False"]
    sweep.main([*words, "--dataset", "array:first.npy", "--normalize", "standardize", "--name", "one"])
    sweep.main(
        [
            "--start-from",
            "one",
            "--dataset",
            "array:other.npy",
            "--figures",
            "False",
            "--report",
            "False",
            "--name",
            "two",
        ]
    )
    one, two = (results.load(typed[0] / name) for name in ("one", "two"))
    np.testing.assert_array_equal(one["input_scale"], two["input_scale"])
    measured, _ = apply("denoising", two, TaskConfig(noise=(0.1,)))
    assert np.isfinite(measured["denoising_psnr"]).all()


def test_lanes_that_differ_in_their_states_alone_are_trained_each_where_states_are_kept(tmp_path):
    words = ["--dataset", "digits", "--beta", "0", "--rho", ".05", "--seeds", "1", "--steps", "3", "--d-hidden", "4"]
    for name, decays in ("both", [".5", ".9"]), ("alone", [".9"]):
        run = ["--runs", str(tmp_path), "--figures", "False", "--report", "False", "--name", name]
        sweep.main([*words, "--ema-decay", *decays, "--keep-state", "True", *run])
    both, alone = (load_states(tmp_path / name)["0.memory.average"] for name in ("both", "alone"))
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-5)
    assert np.all(both[0] > 2 * both[1])


def test_one_lane_is_trained_on_alone(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--start-from", "first", "--name", "alone"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--rho must name one of the lanes to start from: got none of 0.05, 0.1; name one, or use sweep" in line
    train.main(
        [
            "--start-from",
            "first",
            "--rho",
            ".1",
            "--seed",
            "1",
            "--steps",
            "20",
            *("--figures", "False", "--report", "False"),
            "--name",
            "alone",
        ]
    )
    alone = results.load(typed[0] / "alone")
    assert float(alone["rho"]) == 0.1 and alone["seed"].values.tolist() == [1]


def test_a_preset_beside_a_run_to_start_from_names_its_settings(typed):
    small = ["--dataset", "digits", "--samples", "100", "--d-hidden", "6", "--steps", "3", "--batch-size", "20"]
    quick = ["--seeds", "2", "--figures", "False", "--report", "False"]
    sweep.main([*small, *quick, "--model", "topk", "--k", "2", "4", "--name", "of-topk"])
    words = ["--start-from", "of-topk", *quick[2:], "--steps", "2", "--batch-size", "50", "--name", "by-preset"]
    sweep.main([*words, "--preset", "gao", "--aux", ".5"])
    made = results.load(typed[0] / "by-preset")
    assert (made["rows"].item(), made["dead_units"].item(), made["k_warmup"].item()) == ("unit", "auxk", 0)
    # Flags beside it change it, and what neither names is as it was.
    assert (made["aux"].item(), made["k"].values.tolist(), made["d_hidden"].item()) == (0.5, [2, 4], 6)
    np.testing.assert_allclose(np.linalg.norm(made["decoder_weight"], axis=-1), 1, rtol=1e-5)
    # An empty one is none.
    sweep.main([*words[:-1], "by-none", "--preset="])
    assert results.load(typed[0] / "by-none")["rows"].item() == "free"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--start-from", "first", "--preset", "gao"], "must be of the model of first, classic: got gao, of topk;"),
        (["--extend", "first", "--preset", "gao", "bricken"], "got gao bricken, of gao+bricken; leave it out"),
        (["--start-from", "nowhere"], "a finished run's folder must hold"),
        (["--start-from", "first", "--extend", "small"], "extend must be left out beside start_from"),
        (["--extend", "small", "--keep-state", "True"], "extend must be left out beside start_from and keep_state"),
        (["--keep-state", "True", "--patience", "5"], "keep_state needs lanes that end at their last step"),
        (["--start-from", "first", "--rho", ".3"], "rho must be one of those that it has, 0.05, 0.1: got 0.3"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_a_line(words, reason, typed, capsys):
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--dataset", "digits", *words])
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and reason in line


def test_a_merged_run_holds_every_lane_and_tasks_take_its_holes(typed):
    small, corner, both = (results.load(typed[0] / name) for name in ("small", "corner", "both"))
    assert both["rho"].values.tolist() == [0.05, 0.1, 0.2] and both["beta"].values.tolist() == [0.3, 1, 3]
    np.testing.assert_array_equal(both.sel(rho=[0.05, 0.1], beta=[0.3, 1])["loss"], small["loss"])
    np.testing.assert_array_equal(both.sel(rho=0.2, beta=[1, 3])["loss"], corner["loss"])
    holes = both["diverged_at"].isnull()
    assert int(holes.sum()) == 6 and bool((both["eval_l0"].isnull() == holes).all())
    table, _, files = typed[1]["both"].partition("files:")
    assert "nan" not in table and "summary.csv" in files
    assert len((typed[0] / "both" / "summary.csv").read_text().splitlines()) == 1 + int((~holes).sum())
    measured, _ = apply("denoising", both, TaskConfig(noise=(0.1,)))
    assert bool((measured["denoising_psnr"].isel(noise_level=0).isnull() == holes).all())
    alone, _ = apply("denoising", corner, TaskConfig(noise=(0.1,)))
    there = measured["denoising_psnr"].sel(rho=0.2, beta=[1, 3])
    np.testing.assert_allclose(there, alone["denoising_psnr"], rtol=1e-5)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (
            sweep.main,
            ["--extend", "small", "--rho", ".05"],
            "got one without rho 0.1, beta 0.3, seed 0; name all of its",
        ),
        (
            sweep.main,
            ["--extend", "small", "--samples", "500"],
            "cannot extend: the grid must hold every lane of runs/small",
        ),
        (merge.main, ["runs/small", "--name", "x"], "merge needs the folders of several finished runs"),
        (merge.main, ["runs/small", "runs/corner"], "name must be that of a new folder inside --runs: got none"),
        (merge.main, ["runs/small", "runs/no", "--name", "x"], "must hold results.nc: got runs/no"),
        (merge.main, ["runs/corner", "runs/small", "--name", "both"], "must be new, empty or of an unfinished run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(typed, main, words, message, capsys):
    before = sorted(typed[0].rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and message in said
    assert sorted(typed[0].rglob("*")) == before

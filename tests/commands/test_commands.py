"""The commands as a user types them: what they write, what they print, and how they refuse."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from sae_jax.commands import sweep, train
from sae_jax.commands.flags import parse
from sae_jax.storage import results
from tests.conftest import as_for_a_user

SMOKE = ["--steps", "40", "--samples", "300", "--d-hidden", "5", "--batch-size", "50"]
FIGURES = ["curves", "filters", "filters_best", "frontier", "heatmaps", "mean_activation"]


def run(module, *words, cwd, optimised=False):
    """Run `python -m experiments.MODULE` as its own process, away from the source folder.

    Optimised programs are a user's: they are for trainings that would take long without, and for one run from end to
    end.
    """
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "error", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *words],
        cwd=cwd,
        env=as_for_a_user(environment) if optimised else environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call a command's `main` in an empty folder, and return what it printed: what says nothing of a process."""

    def called(main, *words):
        with monkeypatch.context() as patched:
            patched.chdir(tmp_path)
            patched.setenv("COLUMNS", "120")
            main([*words])
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return called


def test_a_sweep_writes_what_it_says_and_says_what_it_wrote(tmp_path):
    words = ["--beta", "0.5", "2", "--seeds", "2", "--name", "small"]
    done = run("sweep", *SMOKE, *words, cwd=tmp_path, optimised=True)
    assert done.returncode == 0 and done.stderr == ""
    folder = tmp_path / "runs" / "small"
    names = ("config.json", "results.nc", "params.safetensors", "summary.csv", "log.txt", "provenance.json")
    files = [folder / name for name in (*names, *(f"figures/{name}.png" for name in FIGURES), "report.html")]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    for path in files:
        assert str(path.relative_to(tmp_path)) in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "runs/small/report.html"

    dataset = results.load(folder)
    assert dataset["loss"].dims == ("beta", "rho", "seed", "step")
    assert dataset["rho"].values.tolist() == [0.01, 0.015, 0.02] and dataset["beta"].values.tolist() == [0.5, 2]
    assert load_file(files[2])["encoder_weight"].shape == (2, 3, 2, 5, 64)
    content = json.loads(files[0].read_text())
    assert content["command"].startswith("python -m experiments.sweep --steps 40 --samples 300")
    assert content["settings"]["beta"] == [0.5, 2] and content["settings"]["patch_size"] == 8

    assert "data: patches of 6 photographs" in done.stdout
    assert "plan: 12 lanes (6 cells x 2 seeds) on" in done.stdout
    assert "compiling: 40 steps, 12 lanes" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["2", "0.02"])
    cell = dataset.sel(beta=2, rho=0.02)["eval_dead_fraction"]
    assert f"{float(cell.mean()):.3f}±{float(cell.std(ddof=1)):.3f}" in row
    assert len(files[3].read_text().splitlines()) == 1 + dataset["eval_l0"].size


def test_train_is_a_sweep_of_one_cell(tmp_path, call):
    words = [*SMOKE, "--dataset", "digits", "--rho", "0.1", "--beta", "2"]
    call(train.main, *words, "--seed", "3", "--name", "one")
    alone = results.load(tmp_path / "runs" / "one")
    assert alone["loss"].dims == ("seed", "step") and alone["seed"].values.tolist() == [3]
    assert sorted(path.stem for path in (tmp_path / "runs/one/figures").iterdir()) == [
        name for name in FIGURES if name not in ("heatmaps", "frontier")
    ]
    undrawn = ["--figures", "False", "--report", "False"]
    call(sweep.main, *words[:-2], *undrawn, "--beta", "1", "2", "--seeds", "1", "3", "--name", "both")
    lane = results.load(tmp_path / "runs" / "both").sel(beta=2, seed=[3])
    np.testing.assert_allclose(alone["encoder_weight"], lane["encoder_weight"], rtol=1e-5, atol=1e-6)


def test_a_run_never_overwrites_another(tmp_path, call, capsys):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "results.nc").write_text("precious")
    with pytest.raises(SystemExit) as stopped:
        call(sweep.main, *SMOKE, "--name", "mine")
    assert stopped.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: the run's folder must be new, empty or of an unfinished run: got runs/mine; choose another --name\n"
    )
    assert (tmp_path / "runs" / "mine" / "results.nc").read_text() == "precious"
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 1


def test_lanes_that_went_wrong_are_named(call):
    words = ["--dataset", "digits", "--beta", "5", "--rho", "0.05", "--seeds", "2", "--name", "wild"]
    printed = call(sweep.main, *SMOKE, *words, "--learning-rate", "0.001", "1e38")
    assert "warning: 2 of 4 lanes turned non-finite and were frozen" in printed
    assert "2 of 2" in printed


def test_units_that_are_stuck_are_named(call):
    # Adam moves every bias by about the learning rate a step, while the running mean still stands near rho.
    penalty = ["--rho", "0.05", "--beta", "50", "--beta-warmup", "0", "--ema-decay", "0.99", "--name", "off"]
    speed = ["--learning-rate", "0.3", "--warmup", "0", "--final-learning-rate", "1"]
    printed = call(train.main, *SMOKE, "--dataset", "digits", *penalty, *speed)
    assert "warning: in 1 of 1 lanes most units are stuck at 0 or at 1" in printed


@pytest.mark.parametrize("module", [sweep, train], ids=["sweep", "train"])
def test_help_states_ranges_units_and_defaults(module, tmp_path, call, capsys):
    with pytest.raises(SystemExit) as ended:
        call(module.main, "--help", "all")
    assert not ended.value.code
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "target mean activation of a hidden unit; in [1e-06, 0.999999]" in text
    assert "fraction of the steps over which the learning rate rises linearly; in [0, 1] (default: 0.05)" in text
    steps = "training steps; left out, lbfgs takes 400 iterations; 0 measures what start_from names"
    assert f"{steps}; >= 0 [step] (default:" in text
    assert "one of sigmoid, tanh, relu, capped_relu, linear (default: sigmoid)" in text
    assert ("--seeds" in text) == (module is sweep)
    assert not (tmp_path / "runs").exists()


BAD = [
    (["--rho", "1.5"], "--rho: rho must be in [1e-06, 0.999999]: got 1.5; the default is 0.0"),
    (["--rho", "0"], "--rho: rho must be in [1e-06, 0.999999]: got 0"),
    (["--rho", "nan"], "--rho: rho must be a finite number: got 'nan'"),
    (["--rho", "a"], "--rho: rho must be a finite number: got 'a'"),
    (["--rho"], "--rho needs a value"),
    (["--rho", "0.1", "--rho", "0.2"], "--rho must be given once"),
    (["--beta", "-1"], "--beta: beta must be >= 0: got -1"),
    (["--ema-decay", "1"], "--ema-decay: ema_decay must be in [0, 1): got 1"),
    (["--learning-rate", "0"], "--learning-rate: learning_rate must be > 0: got 0"),
    (["--d-hidden", "0"], "--d-hidden: d_hidden must be >= 1: got 0"),
    (["--d-hidden", "2.5"], "--d-hidden: d_hidden must be a whole number: got '2.5'"),
    (["--tied", "perhaps"], "--tied: tied must be True or False: got 'perhaps'"),
    (["--activation", "sigmod"], "did you mean sigmoid?"),
    (["--reconstruction-loss", "bernoulli", "--output", "linear"], "reconstruction_loss bernoulli needs probabilities"),
    (["--roh", "0.1"], "unknown flag --roh: did you mean --rho?"),
    (["--roh=0.1"], "unknown flag --roh: did you mean --rho?"),
    (["0.1"], "every value needs a flag before it: got '0.1'"),
    (["--k", "50"], "k must be at most d_hidden: got 50 of 49"),
    (["--k", "10", "--k-start", "7"], "k_start must be at least k, to which it falls: got 7 and k 10"),
    (["--classes", "3"], "classes needs labelled samples: got '3'"),
    (["--dataset", "patchez"], "unknown dataset patchez: did you mean patches?"),
    (["--dataset", "array:nowhere.npy"], "needs a file that exists: got nowhere.npy"),
    (["--dataset", "array:empty.npy"], "empty.npy must not be empty"),
    (
        ["--dataset", "array:holes.npy"],
        "holes.npy must be finite in single precision: got 1 NaN",
    ),
    (["--dataset", "array:flat.npy"], "held-out samples must differ"),
    (["--dataset", "array:large.npy", "--batch-size", "9"], "output sigmoid needs data in [0, 1]"),
    (["--dataset", "array:objects.npy"], "must be a .npy or .npz file of plain numbers"),
    (["--dataset", "array:text.npy"], "must be a .npy or .npz file of plain numbers"),
    (["--dataset", "images:large.npy"], "large.npy must be an array [n, height, width]: got shape [10, 20]"),
    (["--dataset", "tfds:mnist", "--data-dir", "."], "tfds:mnist must be prepared: it is not in --data-dir .,"),
    (["--patch-size", "400"], "patch_size must leave room for two patches side by side"),
    (["--batch-size", "5000", "--samples", "300"], "batch_size must be at most the number of training samples"),
    (["--heldout", "0.9"], "--heldout: heldout must be in (0, 0.5]: got 0.9"),
    (["--blocks", "sideways"], "--blocks: blocks must be one of auto, in_turn, in_parallel: got 'sideways'"),
    (["--devices", "2", "--data-parallel", "3"], "devices must be a multiple of data_parallel: got 2 and 3"),
    (["--devices", "3", "--unit-parallel", "2"], "devices must be a multiple of unit_parallel: got 3 and 2"),
    (
        ["--d-hidden", "7", "--devices", "2", "--unit-parallel", "2"],
        "d_hidden must be a multiple of unit_parallel: got 7",
    ),
    (["--batch-size", "99", "--devices", "2", "--data-parallel", "2"], "batch_size must be a multiple of data_paralle"),
    (["--devices", "99"], "devices must be at most what JAX has: got 99"),
    (["--name", "taken"], "the run's folder must be new, empty or of an unfinished run: got runs/taken"),
    (["--name", "a", "b"], "--name takes one value: got 2"),
    (["--runs", "text.npy"], "the run's folder must be writable: got text.npy"),
    (["--name", "n" * 300], "File name too long"),
    (["--dataset", "array:" + "n" * 300], "File name too long"),
    (["--samples", "2" + 9 * "0"], "samples must fit in memory"),
]
ONLY_SWEEP = [
    (["--cells-per-block", "8", "--lanes-per-chunk", "2"], "a block must fit into its devices' share of a chunk"),
    (["--rho", "0.1", "0.1"], "rho must not name a value twice"),
    (["--seeds", "0"], "seeds must be a number in [1, 1000000]"),
    (["--seeds", "-3"], "seeds must be a number in [1, 1000000]"),
    (["--seeds", "5000000000"], "seeds must be a number in [1, 1000000]"),
    (["--seeds", "1", "1"], "seeds must be different whole numbers"),
    (["--seeds", "x"], "--seeds: seed must be a whole number"),
]
ONLY_TRAIN = [
    (["--rho", "0.1", "0.2"], "--rho takes one value: got 2"),
    (["--seeds", "3"], "unknown flag --seeds: did you mean --seed?"),
    (["--seed", "-1"], "seeds must be different whole numbers in [0, 2^32): got -1"),
]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder of files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    np.save("empty.npy", np.zeros((0, 4)))
    holes = np.full((10, 20), 0.5)
    holes[3, 4] = np.nan
    np.save("holes.npy", holes)
    np.save("flat.npy", np.full((500, 4), 0.5))
    np.save("large.npy", np.arange(200.0).reshape(10, 20))
    np.save("objects.npy", np.array([{}, {}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "results.nc").write_text("precious")
    return tmp_path


def tree(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (main, *case)
        for main, cases in ((sweep.main, BAD + ONLY_SWEEP), (train.main, BAD + ONLY_TRAIN))
        for case in cases
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_in_one_line_and_writes_nothing(main, words, message, workplace, capsys):
    before = tree(workplace)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    assert message in captured.err
    assert tree(workplace) == before


def test_bad_input_shows_no_traceback_in_a_process_of_its_own(tmp_path):
    done = run("sweep", "--beta", "-1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --beta: beta must be >= 0: got -1; the default is 0.5 1 2\n"
    assert not list(tmp_path.iterdir())


def test_axes_come_in_the_order_of_the_command_line():
    words = ["--seeds", "2", "--ema-decay", ".5", ".9", "--d-hidden=4", "--rho", ".1", ".2", "--tied", "true", "false"]
    _, settings, seeds = parse(words, "x", "", {}, several=True)
    assert [name for name, value in settings.items() if isinstance(value, tuple)] == ["ema_decay", "rho", "tied"]
    assert settings["rho"] == (0.1, 0.2) and settings["d_hidden"] == 4 and settings["tied"] == (True, False)
    assert seeds == 2

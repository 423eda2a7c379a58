"""The commands as a user types them: what they write, what they print, and how they refuse."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from sae_jax.commands import evaluate, sweep, train
from sae_jax.commands.flags import parse
from sae_jax.storage import results
from tests.conftest import CACHE, QUICK_COMPILER

SMOKE = ["--steps", "40", "--samples", "300", "--d-hidden", "5", "--batch-size", "50"]
FIGURES = ["curves", "filters", "filters_best", "heatmaps", "mean_activation", "tradeoff"]


def run(module, *words, cwd):
    """Run `python -m experiments.MODULE` as its own process, away from the source folder."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "error", "COLUMNS": "120"}
    environment["XDG_CACHE_HOME"] = CACHE
    environment["XLA_FLAGS"] = environment["XLA_FLAGS"].replace(QUICK_COMPILER, "").strip()
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_sweep_writes_what_it_says_and_says_what_it_wrote(tmp_path):
    done = run("sweep", *SMOKE, "--beta", "0.5", "2", "--seeds", "2", "--name", "small", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    folder = tmp_path / "runs" / "small"
    files = [folder / name for name in ("config.json", "results.nc", "params.safetensors")]
    files += [folder / "figures" / f"{name}.png" for name in FIGURES]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    for path in files:
        assert str(path.relative_to(tmp_path)) in done.stdout

    dataset = results.load(folder)
    assert dataset["loss"].dims == ("beta", "rho", "seed", "step")
    assert dataset["rho"].values.tolist() == [0.05, 0.07, 0.1] and dataset["beta"].values.tolist() == [0.5, 2]
    assert load_file(files[2])["encoder_weight"].shape == (2, 3, 2, 5, 64)
    content = json.loads(files[0].read_text())
    assert content["command"].startswith("python -m experiments.sweep --steps 40 --samples 300")
    assert content["settings"]["beta"] == [0.5, 2] and content["settings"]["patch_size"] == 8

    assert "data: patches of 6 photographs" in done.stdout
    assert "plan: 12 lanes (6 cells x 2 seeds) on" in done.stdout
    assert "compiling: 40 steps, 12 lanes" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("│    2 │ 0.05"))
    cell = dataset.sel(beta=2, rho=0.05)["eval_reconstruction"]
    assert f"{float(cell.mean()):.3f} +- {float(cell.std()):.3f}" in row


def test_train_is_a_sweep_of_one_cell(tmp_path):
    words = [*SMOKE, "--dataset", "digits", "--rho", "0.1", "--beta", "2"]
    done = run("train", *words, "--seed", "3", "--name", "one", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    alone = results.load(tmp_path / "runs" / "one")
    assert alone["loss"].dims == ("seed", "step") and alone["seed"].values.tolist() == [3]
    assert sorted(path.stem for path in (tmp_path / "runs/one/figures").iterdir()) == [
        name for name in FIGURES if name not in ("heatmaps", "tradeoff")
    ]
    swept = run("sweep", *words[:-2], "--beta", "1", "2", "--seeds", "1", "3", "--name", "both", cwd=tmp_path)
    assert swept.returncode == 0
    lane = results.load(tmp_path / "runs" / "both").sel(beta=2, seed=[3])
    np.testing.assert_allclose(alone["encoder_weight"], lane["encoder_weight"], rtol=1e-5, atol=1e-6)


def test_a_run_never_overwrites_another(tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "results.nc").write_text("precious")
    done = run("sweep", *SMOKE, "--name", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: the run's folder must be new, empty or of an unfinished run: got runs/mine; choose another --name\n"
    )
    assert (tmp_path / "runs" / "mine" / "results.nc").read_text() == "precious"
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 1


def test_lanes_that_went_wrong_are_named(tmp_path):
    words = ["--dataset", "digits", "--beta", "5", "--rho", "0.05", "--seeds", "2", "--name", "wild"]
    done = run("sweep", *SMOKE, *words, "--learning-rate", "0.001", "1e38", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: 2 of 4 lanes turned non-finite and were frozen" in done.stdout
    assert "2 of 2" in done.stdout


def test_units_that_are_stuck_are_named(tmp_path):
    # Adam moves every bias by about the learning rate a step, while the running mean still stands near rho.
    penalty = ["--rho", "0.05", "--beta", "50", "--beta-warmup", "0", "--ema-decay", "0.99", "--name", "off"]
    speed = ["--learning-rate", "0.3", "--warmup", "0", "--final-learning-rate", "1"]
    done = run("train", *SMOKE, "--dataset", "digits", *penalty, *speed, cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: in 1 of 1 lanes most units are stuck at 0 or at 1" in done.stdout


@pytest.mark.parametrize("module", ["sweep", "train"])
def test_help_states_ranges_units_and_defaults(module, tmp_path):
    done = run(module, "--help", cwd=tmp_path)
    assert done.returncode == 0
    text = " ".join(done.stdout.replace("│", " ").split())
    assert "target mean activation of a hidden unit; in [1e-06, 0.999999]" in text
    assert "fraction of the steps over which the learning rate rises linearly; in [0, 1] (default: 0.05)" in text
    assert "training steps; >= 1 [step] (default: 10000)" in text
    assert "one of sigmoid, tanh, relu, linear (default: sigmoid)" in text
    assert ("--seeds" in text) == (module == "sweep")
    assert not (tmp_path / "runs").exists()


BAD = [
    (["--rho", "1.5"], "--rho: rho must be in [1e-06, 0.999999]: got 1.5; the default is 0.05"),
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
    (["--dataset", "tfds:mnist", "--data-dir", "."], "tfds:mnist must be prepared: it is not in --data-dir ."),
    (["--patch-size", "400"], "patch_size must leave room for two patches side by side"),
    (["--batch-size", "5000", "--samples", "300"], "batch_size must be at most the number of training samples"),
    (["--heldout", "0.9"], "--heldout: heldout must be in (0, 0.5]: got 0.9"),
    (["--blocks", "sideways"], "--blocks: blocks must be one of auto, in_turn, in_parallel: got 'sideways'"),
    (["--devices", "2", "--data-parallel", "3"], "devices must be a multiple of data_parallel: got 2 and 3"),
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
    assert done.stderr == "error: --beta: beta must be >= 0: got -1; the default is 1\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A finished run on digits that left a class out."""
    folder = tmp_path_factory.mktemp("digits")
    words = ["--dataset", "digits", "--classes", "0-8", "--rho", "0.1", "--beta", "0.1", "1", "--seeds", "2"]
    done = run("sweep", "--steps", "100", "--d-hidden", "10", *words, "--name", "digits", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "digits"


def test_a_run_is_put_to_a_task_and_keeps_what_it_had(digits_run):
    before = results.load(digits_run)
    done = run("evaluate", "runs/digits", "--task", "denoising", "--noise", "0.1", "0.3", cwd=digits_run.parents[1])
    assert done.returncode == 0 and done.stderr == ""
    after = results.load(digits_run)
    assert after["denoising_psnr"].dims == ("beta", "seed", "noise_level")
    assert after["noise_level"].values.tolist() == [0.1, 0.3] and after.attrs == before.attrs
    for name in before.variables:
        np.testing.assert_array_equal(after[name], before[name])
    assert (digits_run / "figures" / "denoising.png").stat().st_size > 10_000
    assert "figures/denoising.png" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("│  0.1 │"))
    mean = float(after["denoising_psnr"].sel(beta=0.1).mean())
    assert f"{mean:.3f} +-" in row


def test_a_figure_that_cannot_be_written_leaves_the_results_as_they_were(digits_run, tmp_path, capsys):
    for name in ("results.nc", "params.safetensors"):
        (tmp_path / name).write_bytes((digits_run / name).read_bytes())
    (tmp_path / "figures").write_text("a file")
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(tmp_path), "--task", "inpainting"])
    assert stopped.value.code == 2 and tree(tmp_path) == before
    assert "the run's folder must be writable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "evaluate needs the folder of one finished run, before its flags: got none"),
        (["nowhere"], "a finished run's folder must hold results.nc: got nowhere"),
        (["RUN", "--task", "prob"], "--task: task must be one of"),
        (["RUN", "--noise", "-1"], "--noise: noise must be > 0: got -1; the default is 0.05 0.1"),
        (["RUN", "--layers"], "--layers needs a value: got none"),
        (["RUN", "--hole", "2"], "--hole: hole must be in (0, 1): got 2"),
        (["RUN", "--tsak", "probe"], "unknown flag --tsak: did you mean --task?"),
        (["RUN", "RUN"], "evaluate needs the folder of one finished run, before its flags: got /"),
        (["BROKEN"], "a finished run's files must be readable"),
    ],
)
def test_bad_evaluations_end_in_one_line_and_change_nothing(digits_run, words, message, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("results.nc", "params.safetensors"):
        (broken / name).write_bytes((digits_run / name).read_bytes()[:500])
    before = tree(digits_run)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([{"RUN": str(digits_run), "BROKEN": str(broken)}.get(word, word) for word in words])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    assert message in captured.err and tree(digits_run) == before


def test_axes_come_in_the_order_of_the_command_line():
    words = ["--seeds", "2", "--ema-decay", ".5", ".9", "--d-hidden=4", "--rho", ".1", ".2", "--tied", "true", "false"]
    _, settings, seeds = parse(words, "x", "", {}, several=True)
    assert [name for name, value in settings.items() if isinstance(value, tuple)] == ["ema_decay", "rho", "tied"]
    assert settings["rho"] == (0.1, 0.2) and settings["d_hidden"] == 4 and settings["tied"] == (True, False)
    assert seeds == 2

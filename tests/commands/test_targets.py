"""Transcoders from the command line: trained, written for SAELens, measured again, and refused without targets."""

import json
from pathlib import Path

import numpy as np
import pytest

from sae_jax.analysis import figures
from sae_jax.commands import encode, evaluate, export, report, sweep, units
from sae_jax.storage import results
from tests.parity.cases import FIXTURES

FOLDERS = FIXTURES / "folders"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype(np.float32)
Y = np.maximum(X @ RNG.normal(size=(6, 4)), 0).astype(np.float32)
SHORT = ["--d-hidden", "12", "--steps", "50", "--batch-size", "32", "--seeds", "1", "--normalize", "none"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with samples and their targets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "save_all", lambda dataset, folder: [])
    for name, values in (("x", X), ("y", Y), ("few", Y[:9]), ("wide", np.c_[Y, Y])):
        np.save(f"{name}.npy", values)
    return tmp_path


def test_a_lane_is_trained_written_and_measured_as_it_was(here):
    data = ["--dataset", "array:x.npy", "--targets", "y.npy"]
    sweep.main([*data, "--model", "relu", "jumprelu", "--skip", "True", *SHORT, "--name", "trained"])
    record = json.loads(Path("runs/trained/config.json").read_text())["settings"]
    assert (record["targets"], record["outputs"]) == (str(here / "y.npy"), 4)
    export.main(["trained", "--lane", "model=jumprelu", "--out", "written"])
    assert json.loads(Path("written/cfg.json").read_text())["architecture"] == "jumprelu_skip_transcoder"
    sweep.main([*data, "--start-from", "written", "--steps", "0", "--name", "measured"])
    before, after = (results.load(f"runs/{name}") for name in ("trained", "measured"))
    for name in ("eval_explained_variance", "eval_l0", "eval_reconstruction"):
        np.testing.assert_allclose(after[name].squeeze(), before[name].sel(model="jumprelu").squeeze(), rtol=1e-4)
    for words in ([], ["--dataset", "array:x.npy"]):
        encode.main(["trained", *words, "--lane", "model=relu", "--out", "codes.npz"])
        assert np.load("codes.npz")["codes"].shape == (400, 12)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dataset", "array:x.npy"], "a transcoder of 4 outputs needs targets: got samples alone; add targets"),
        (["--dataset", "array:x.npy", "--targets", "few.npy"], "for each of the 400 samples, in their order: got 9 in"),
        (["--dataset", "array:x.npy", "--targets", "wide.npy"], "targets must have 4 numbers, as outputs says: got 8"),
        (["--dataset", "array:y.npy", "--targets", "y.npy"], "encoder_weight must be [10, 6], as it is there: got"),
    ],
)
def test_what_does_not_fit_a_folder_is_refused_in_a_line(words, says, here, capsys):
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--start-from", str(FOLDERS / "transcoder"), "--steps", "0", *words])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line and not Path("runs").exists()


def test_any_setting_of_the_model_may_be_given_beside_a_run_or_a_folder(here, capsys):
    data = ["--dataset", "array:x.npy", "--targets", "y.npy"]
    sweep.main([*data, "--model", "topk", "--k", "2", "--skip", "False", "True", *SHORT, "--name", "run"])
    sweep.main([*data, "--model", "relu", *SHORT, "--name", "other"])
    export.main(["other", "--lane", "seed=0", "--out", "folder"])
    sweep.main(["--start-from", "run", "--rows", "free", "--skip", "True", "--steps", "2", "--name", "free"])
    sweep.main(["--start-from", "runs/other", "--dead-units", "auxk", "--steps", "2", "--name", "helped"])
    sweep.main(["--start-from", "folder", "--rows", "unit", *data, "--steps", "2", "--name", "unit"])
    sweep.main(["--extend", "run", "--k", "2", "3", "--seeds", "1", "--name", "larger"])
    made = {name: results.load(f"runs/{name}") for name in ("free", "helped", "unit", "larger")}
    assert made["free"]["rows"].item() == "free" and made["free"]["skip"].item()
    assert made["helped"]["dead_units"].item() == "auxk" and made["unit"]["rows"].item() == "unit"
    assert made["larger"].sizes["k"] == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--start-from", "run", "--rho", ".1"])
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line == "error: --rho is no setting of model topk: got it beside run; leave it out"


def test_other_samples_need_targets_of_their_own(here, capsys):
    np.save("other.npy", X[::-1])
    np.save("others.npy", Y[::-1])
    data = ["--dataset", "array:x.npy", "--targets", "y.npy"]
    sweep.main([*data, "--model", "topk", "--k", "2", *SHORT, "--name", "run"])
    sweep.main(["--start-from", "run", "--dataset", "array:./x.npy", "--steps", "2", "--name", "same"])
    moved = ["--dataset", "array:other.npy", "--targets", "others.npy"]
    sweep.main(["--start-from", "run", *moved, "--steps", "2", "--name", "both"])
    assert results.load("runs/both")["targets"].item() == str(here / "others.npy")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--start-from", "run", "--dataset", "array:other.npy", "--steps", "2", "--name", "one"])
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and not Path("runs/one").exists()
    says = "another dataset needs targets of its own: got array:other.npy without; add --targets"
    assert line == f"error: cannot start from run: {says}"


def test_squared_errors_are_in_the_units_of_what_is_reconstructed(here):
    auxiliary = ["--model", "relu", "--dead-units", "auxk", "--aux-form", "full"]
    for name, targets, what in (("own", [], "input"), ("others", ["--targets", "y.npy"], "target")):
        sweep.main(["--dataset", "array:x.npy", *targets, *auxiliary, *SHORT, "--name", name])
        made = results.load(f"runs/{name}")
        for variable in ("eval_reconstruction", "loss", "loss_reconstruction", "loss_aux", "loss_l1"):
            assert made[variable].attrs["units"] == f"squared {what} units per sample", variable


def test_samples_and_targets_that_were_moved_are_found_where_they_lie_now(here, capsys):
    data = ["--dataset", "array:x.npy", "--targets", "y.npy"]
    sweep.main([*data, "--model", "topk", "--k", "2", *SHORT, "--report", "False", "--name", "run"])
    sweep.main(["--dataset", "array:x.npy", "--model", "relu", *SHORT, "--report", "False", "--name", "own"])
    for name in "xy":
        Path(f"{name}.npy").rename(f"{name}2.npy")
    capsys.readouterr()

    def refused(main, *words):
        with pytest.raises(SystemExit) as ended:
            main([*words])
        assert ended.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "(where it was moved, add --targets NEW.npy)" in refused(units.main, "run", "--dataset", "array:x2.npy")
    assert "got y.npy; use one" in refused(report.main, "run", "--dataset", "array:x2.npy")
    assert "got x.npy" in refused(units.main, "run", "--targets", "y2.npy")
    assert refused(units.main, "run", "--targets", "y3.npy").endswith("use one with a row for each sample")
    assert "for a run without; leave it out" in refused(report.main, "own", "--targets", "y2.npy")
    assert "--targets says where the samples of one run" in refused(report.main, "run", "own", "--targets", "y2.npy")
    moved = ["--dataset", "array:x2.npy", "--targets", "y2.npy"]
    report.main(["run", *moved])
    assert Path("runs/run/report.html").is_file()
    units.main(["run", *moved])
    found = results.load("runs/run")
    assert (found["dataset"].item(), found["targets"].item()) == (f"array:{here / 'x2.npy'}", str(here / "y2.npy"))
    encode.main(["run", "--lane", "seed=0", "--out", "codes.npz"])


def test_tasks_of_autoencoders_are_refused_in_a_line(here, capsys):
    sweep.main(["--dataset", "array:x.npy", "--targets", "y.npy", "--model", "relu", *SHORT, "--name", "trained"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["trained", "--task", "inpainting"])
    assert ended.value.code == 2
    assert "task inpainting is of autoencoders, which reconstruct their samples" in capsys.readouterr().err

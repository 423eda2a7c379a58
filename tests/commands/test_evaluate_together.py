"""Measures of several processes on one run: none is lost that was said to be saved."""

import shutil

import pytest

from sae_jax.analysis import tasks
from sae_jax.commands import evaluate, sweep
from sae_jax.storage import results
from tests import processes

WORDS = ["--dataset", "digits", "--samples", "200", "--d-hidden", "4", "--steps", "5", "--rho", ".1", "--seeds", "2"]
TASKS = {"denoising": ["--noise", ".1"], "anomaly": [], "retrieval": []}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the digits but the last two."""
    place = tmp_path_factory.mktemp("place")
    sweep.main([*WORDS, "--classes", "0-7", "--runs", str(place), "--name", "run"])
    return place / "run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def files(run):
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_the_measures_of_processes_that_work_on_a_run_at_once_are_all_kept(run, tmp_path):
    before = files(run)
    running = [
        processes.start(["-m", "experiments.evaluate", str(run), "--task", task, *words], tmp_path)
        for task, words in TASKS.items()
    ]
    for process in running:
        _, complaint, code = processes.ended(process)
        assert (code, complaint) == (0, "")
    names = set(results.load(run).data_vars)
    assert all(any(name.startswith(f"{task}_") for name in names) for task in TASKS)
    assert files(run) == before | {f"figures/{task}.png" for task in TASKS}
    assert "anomaly_auroc" in (run / "summary.csv").read_text()


def test_what_was_added_while_a_task_was_measured_stays(run, monkeypatch):
    measure = tasks.measure

    def slowly(*arguments, **words):
        monkeypatch.undo()
        evaluate.main([str(run), "--task", "retrieval"])
        return measure(*arguments, **words)

    monkeypatch.setattr(tasks, "measure", slowly)
    evaluate.main([str(run), "--task", "denoising", "--noise", ".1"])
    assert {"retrieval_map", "denoising_psnr"} <= {*results.load(run).data_vars}


def test_an_unfinished_run_is_not_evaluated_since_its_results_are_written_anew(run, capsys):
    (run / "unfinished").mkdir()
    before = (run / "results.nc").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(run), "--task", "anomaly"])
    assert stopped.value.code == 2
    fix = f"resume it by the command that began it: --resume {run}"
    line = f"error: a run must be finished: got {run}, an unfinished one; {fix}\n"
    assert capsys.readouterr().err == line and (run / "results.nc").read_bytes() == before


def test_what_a_killed_process_has_left_in_a_finished_run_is_taken_away(run):
    before = files(run)
    (run / ".removed" / "checkpoints").mkdir(parents=True)
    for name in (".lock", ".results.nc.partial", "figures/.anomaly.png.partial"):
        (run / name).write_bytes(b"left")
    evaluate.main([str(run), "--task", "anomaly"])
    assert files(run) == before | {"figures/anomaly.png"} and not (run / ".removed").exists()

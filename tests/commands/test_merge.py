"""Runs merged from the command line: what their folder tells of itself, and the command given twice."""

import json
import shutil

import pytest

from sae_jax.analysis import figures
from sae_jax.commands import evaluate, merge, runs, sweep
from sae_jax.storage import provenance

SWEEP = ["--dataset", "digits", "--samples", "100", "--d-hidden", "4", "--batch-size", "20", "--steps", "20"]
MERGE = ["runs/low", "runs/high", "--name", "both"]
VOLATILE = ("log.txt", "provenance.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a merged run, as a user makes it."""
    folder = tmp_path_factory.mktemp("merged")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name, rho in (("low", ".05"), ("high", ".2"), ("other", ".3")):
            sweep.main([*SWEEP, "--rho", rho, "--beta", "1", "--figures", "False", "--report", "False", "--name", name])
        patched.setattr(figures, "save_all", lambda dataset, folder: [])  # Which takes longest.
        merge.main(MERGE)
    return folder


@pytest.fixture
def again(place, tmp_path, monkeypatch):
    """A copy of that folder, in which commands are given; the merged run's own."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "save_all", lambda dataset, folder: [])
    return tmp_path / "runs" / "both"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_merged_run_keeps_what_it_printed_and_where_it_was_made(again, capsys):
    command, *logged = (again / "log.txt").read_text().splitlines()
    assert command.endswith("merge runs/low runs/high --name both")
    for line in ("files:", "  runs/both/log.txt", "  runs/both/provenance.json", "  runs/both/summary.csv"):
        assert line in logged
    assert any(line.split()[:1] == ["0.2"] for line in logged)
    [session] = json.loads((again / "provenance.json").read_text())["sessions"]
    assert command.endswith(session["command"]) and session["outcome"] == "finished" and session["seconds"] > 0
    assert session["source"] == provenance.source() and session["host"] and session["versions"]["xarray"]
    capsys.readouterr()
    runs.main(["both"])
    shown = capsys.readouterr().out
    assert "runs/both: finished" in shown and f"command: {session['command']}" in shown
    assert f"began {session['began']}" in shown and f"machine: {session['host']}" in shown


def test_a_merge_given_again_takes_away_what_a_killed_process_has_left(again, capsys):
    before = contents(again)
    (again / ".removed" / "checkpoints").mkdir(parents=True)
    for name in (".lock", ".results.nc.partial"):
        (again / name).write_bytes(b"left")
    capsys.readouterr()
    merge.main(MERGE)
    said = capsys.readouterr()
    assert contents(again) == before and not (again / ".removed").exists()
    assert said.err == "" and "  runs/both/results.nc" in said.out.splitlines()


def test_tasks_that_were_added_to_a_merged_run_stay(again):
    evaluate.main(["both", "--task", "denoising", "--noise", ".1"])
    before = contents(again)
    # As a shell completes the names of folders.
    merge.main(["runs/low/", "runs/high/", *MERGE[2:]])
    assert contents(again) == before


def test_another_merge_of_that_name_is_refused(again, capsys):
    before = contents(again)
    shutil.rmtree("runs/high")
    shutil.move("runs/other", "runs/high")
    for words in (MERGE, ["runs/high", "runs/low", "--name", "both"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            merge.main(words)
        [line] = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2 and "got runs/both, which is finished; choose another --name" in line
    assert contents(again) == before


def test_a_merge_that_was_cut_short_is_done_again(again):
    before = contents(again)
    (again / "unfinished").mkdir()
    (again / "summary.csv").unlink()
    merge.main(MERGE)
    now = contents(again)
    assert {name: now[name] for name in now if name not in VOLATILE} == {
        name: before[name] for name in before if name not in VOLATILE
    }
    assert [one["outcome"] for one in json.loads(now["provenance.json"])["sessions"]] == ["finished", "finished"]

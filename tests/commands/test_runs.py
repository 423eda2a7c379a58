"""What a run's folder tells of itself, and the command that lists, shows and clears runs."""

import io
import json
import shutil
import signal
import subprocess
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors import safe_open

from sae_jax.analysis.lanes import trained
from sae_jax.commands import evaluate, runs, sweep
from sae_jax.storage import provenance, results
from tests.commands.test_signals import OFTEN, WORDS, ended, read_until, start

SMOKE = ["--dataset", "digits", "--steps", "60", "--d-hidden", "5", "--batch-size", "50", "--rho", "0.05", "0.1"]
SMOKE += ["--beta", "1", "--seeds", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of finished runs: one of the same sweep for each value of --keep."""
    place = tmp_path_factory.mktemp("place")
    for keep in ("all", "best", "none"):
        drawn = ["--figures", str(keep != "best"), "--report", "False"]
        sweep.main([*SMOKE, *drawn, "--runs", str(place / "runs"), "--name", keep, "--keep", keep])
    return place / "runs"


def test_a_run_keeps_what_it_printed_and_where_it_was_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep.main([*SMOKE, "--figures", "False", "--report", "False", "--name", "one"])
    printed = capsys.readouterr().out.splitlines()
    command, *logged = (tmp_path / "runs/one/log.txt").read_text().splitlines()
    progress = ("compiling:", "training:", "evaluating:")
    assert [line.rstrip() for line in logged] == [line.rstrip() for line in printed if not line.startswith(progress)]
    assert any(line.startswith("plan: 6 lanes") for line in logged) and any(
        line.split()[:1] == ["0.05"] for line in logged
    )
    assert any(line.startswith("warning: 6 of 6 lanes explain less than 5%") for line in logged)
    content = json.loads((tmp_path / "runs/one/provenance.json").read_text())
    [session] = content["sessions"]
    assert command.endswith(session["command"]) and session["command"].endswith("--name one")
    assert session["outcome"] == "finished" and content["seconds"] == session["seconds"] > 0
    assert session["devices"] == "4 cpu" and session["versions"]["jax"] and session["host"] and session["processor"]
    assert session["source"] == provenance.source()
    # What is known again is what it was before.
    assert set(json.loads((tmp_path / "runs/one/config.json").read_text())) == {
        *("command", "settings", "axes", "run", "devices", "samples", "packing", "versions", "extends", "started_from"),
        "plugins",
    }


def test_a_run_that_is_interrupted_and_resumed_has_one_log_and_two_entries(tmp_path):
    process = start(tmp_path, *WORDS, *OFTEN, "--name", "run")
    assert read_until(process, "training: step 3000")
    process.send_signal(signal.SIGTERM)
    _, complaint, code = ended(process)
    assert code == 143
    log = tmp_path / "runs/run/log.txt"
    before = log.read_text()
    assert before.splitlines()[-1] == complaint.strip()
    _, complaint, code = ended(start(tmp_path, "--resume", "runs/run", "--keep", "best"))
    assert (code, complaint) == (0, "") and log.read_text().startswith(before)
    assert "resuming runs/run: " in log.read_text() and log.read_text().count("plan: 12 lanes") == 2
    content = json.loads((tmp_path / "runs/run/provenance.json").read_text())
    assert [one["outcome"] for one in content["sessions"]] == ["interrupted", "finished"]
    assert content["seconds"] == pytest.approx(sum(one["seconds"] for one in content["sessions"]), abs=0.002)
    assert results.load(tmp_path / "runs/run").attrs["parameters_of"] == "best"


def repository(folder, *commands):
    """A git repository in which commands are run."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], *commands):
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there")
def test_the_source_is_known_by_its_commit_and_whether_it_has_changed(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert provenance.source(package) is None
    repository(tmp_path, ["commit", "-q", "--allow-empty", "-m", "empty"])
    assert provenance.source(package) is None  # A repository of something else.
    repository(tmp_path, ["add", "."], ["commit", "-q", "-m", "first"])
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert provenance.source(package) == {"commit": head.stdout.strip(), "dirty": False}
    (tmp_path / "notes.txt").write_text("no part of the source")
    assert provenance.source(package)["dirty"] is False
    (package / "new.py").write_text("")
    assert provenance.source(package)["dirty"] is True


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.source() is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"sessions": 3}', b"\xff", b'{"sessions": [{"seconds": 1e999}]}'])
def test_a_damaged_provenance_is_no_obstacle(content, tmp_path):
    (tmp_path / "provenance.json").write_bytes(content)
    assert provenance.seconds_of(provenance.read_sessions(tmp_path)) == 0


def test_times_that_cannot_be_are_not_counted():
    seconds = [1.5, 10**400, 1e308, 1e308, -3, True, "4", None, float("nan"), 2]
    assert provenance.seconds_of([{"seconds": one} for one in seconds]) == 3.5


def test_the_log_is_not_written_through_a_link(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    run = tmp_path / "runs" / "one"
    sweep.main([*SMOKE, "--figures", "False", "--report", "False", "--runs", str(tmp_path / "runs"), "--name", "other"])
    shutil.copy(tmp_path / "runs/other/config.json", run)
    (run / "unfinished").mkdir()
    (run / "log.txt").symlink_to(tmp_path / "precious.txt")
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--resume", str(run)])
    assert stopped.value.code == 2 and "the run's folder must be writable" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").read_text() == "precious"


def test_parameters_that_are_not_kept_take_no_room_and_the_files_say_whose_are(folder):
    every, best, none = (results.load(folder / keep) for keep in ("all", "best", "none"))
    parameters = ["encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"]
    sizes = {keep: (folder / keep / "params.safetensors").stat().st_size for keep in ("all", "best", "none")}
    values = 4 * sum(every[name].size for name in parameters)
    assert sizes["all"] > values and values / 3 < sizes["best"] < values / 3 + 2000 and sizes["none"] < 200
    assert "parameters_of" not in every.attrs and not set(parameters) & set(none.data_vars)
    for i in range(2):
        seed = int(every["eval_reconstruction"].isel(rho=i).argmin("seed"))
        assert best["parameters_seed"].values[i] == every["seed"].values[seed]
        for name in parameters:
            assert best[name].dims == tuple(dim for dim in every[name].dims if dim != "seed")
            np.testing.assert_array_equal(best[name].values[i], every[name].values[i, seed])
    for name in none.variables:  # The measures of all lanes are there, to the bit.
        np.testing.assert_array_equal(none[name], every[name])
        np.testing.assert_array_equal(best[name], every[name])
    with safe_open(folder / "best" / "params.safetensors", framework="numpy") as file:
        said = json.loads(file.metadata()["parameters_seed"])
        assert said == {"dims": ["rho"], "values": best["parameters_seed"].values.tolist()}
        assert json.loads(file.metadata()["decoder_weight"])["long_name"].endswith("of parameters_seed")
    assert sorted(path.name for path in (folder / "none/figures").iterdir()) == sorted(
        path.name for path in (folder / "all/figures").iterdir()
    )


def test_a_task_says_that_parameters_were_not_kept(folder, capsys):
    before = (folder / "none" / "results.nc").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(folder / "none"), "--task", "anomaly"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: task anomaly needs the parameters of a lane of every cell: got a run that kept none (--keep none); "
        "train it again with --keep best or all\n"
    )
    assert (folder / "none" / "results.nc").read_bytes() == before


def test_a_task_measures_the_lanes_whose_parameters_were_kept(folder, tmp_path, capsys):
    measured = {}
    for keep in ("all", "best"):
        shutil.copytree(folder / keep, tmp_path / keep)
        evaluate.main([str(tmp_path / keep), "--task", "inpainting"])
        measured[keep] = results.load(tmp_path / keep)
    assert "without 4 lanes that are absent" in " ".join(capsys.readouterr().out.split())
    every, best = (measured[keep]["inpainting_psnr"] for keep in ("all", "best"))
    is_best = (every["seed"] == measured["best"]["parameters_seed"]).transpose("rho", "seed")
    assert is_best.sum() == is_best.sizes["rho"] and is_best.sizes["seed"] > 1
    # Three lanes of a program and one are compiled apart.
    np.testing.assert_allclose(best, every.where(is_best), rtol=1e-5)
    seed = int(measured["best"]["parameters_seed"].values[0])
    of_one_seed = trained(measured["best"].sel(seed=seed))
    assert len(of_one_seed[0].places) == int((measured["best"]["parameters_seed"] == seed).sum())


def test_the_plan_says_how_much_room_a_run_takes(tmp_path, capsys):
    sweep.main(
        [
            *(word if word != "5" else "200" for word in SMOKE),
            "--runs",
            str(tmp_path),
            "--name",
            "a",
            *("--figures", "False", "--report", "False"),
        ]
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if " of results" in line)
    stored = sum((tmp_path / "a" / name).stat().st_size for name in ("results.nc", "params.safetensors"))
    number, unit = line.removeprefix("plan: ").split()[:2]
    said = float(number.replace(",", "")) * {"kB": 1e3, "MB": 1e6}[unit]
    assert said == pytest.approx(stored, rel=0.12)


@pytest.fixture
def copies(folder, tmp_path):
    """A folder with a finished run, two that were abandoned, and one that lacks no more than figures."""
    place = tmp_path / "runs"
    shutil.copytree(folder / "all", place / "finished")
    for name in ("left", "noted"):
        (place / name / "unfinished" / "checkpoints").mkdir(parents=True)
        shutil.copy(folder / "all" / "config.json", place / name)
        (place / name / "unfinished" / "checkpoints" / "state").write_bytes(b"0" * 50_000)
    (place / "noted" / "notes.txt").write_text("mine")
    shutil.copytree(folder / "all", place / "drawing")
    (place / "drawing" / "unfinished").mkdir()
    (place / "no run").mkdir()
    return place


def size_of_abandoned(folder, *names):
    """Of the files of runs that are cleared, in words; their records name versions, whose texts differ."""
    files = [path for name in names or ("left", "noted") for path in (folder / name).rglob("*") if path.is_file()]
    return f"{sum(path.stat().st_size for path in files) / 1e3:.0f} kB"


def test_runs_are_listed_with_their_state_and_size(copies, capsys):
    runs.main(["--runs", str(copies)])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    states = {row[0]: row[1:3] for row in rows if row}
    for name in ("left", "noted"):
        assert states[name] == ["unfinished", size_of_abandoned(copies, name)]
    assert states["finished"][0] == "finished" and states["drawing"][0] == "unfinished (has results)"
    assert set(states) == {"left", "noted", "finished", "drawing"}


def test_a_run_is_shown_with_its_table_its_warnings_and_how_it_was_made(copies, capsys):
    runs.main(["finished", "--runs", str(copies)])
    said = capsys.readouterr().out
    for words in (
        "finished: finished, ",
        "\n0.05 ",
        "warning: 6 of 6 lanes",
        "command: ",
        "duration: 0:",
        "versions: ",
    ):
        assert words in said
    runs.main([str(copies / "left")])
    said = capsys.readouterr().out
    assert f"to resume: python -m experiments.sweep --resume {copies / 'left'}" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["finishe"], "a run's folder must hold a run: got finishe; did you mean "),
        (["--clear"], "clear asks at a terminal before it removes 2 unfinished runs, SIZE: got none; add --yes"),
        (["left", "--clear"], "clear takes no name: got left; leave it out"),
        (["--yes"], "yes must stand beside clear: got no --clear; add it"),
    ],
)
def test_a_bad_call_is_refused_and_removes_nothing(words, line, copies, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = sorted(copies.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        runs.main([*words, "--runs", str(copies)])
    line = line.replace("SIZE", size_of_abandoned(copies))
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith(f"error: {line}")
    assert sorted(copies.rglob("*")) == before


def test_only_abandoned_runs_are_cleared_and_never_one_in_use(copies, capsys):
    process = start(copies.parent, *WORDS, "--name", "busy")
    try:
        assert read_until(process, "training: ")
        runs.main(["--runs", str(copies)])
        assert "│ in use" in capsys.readouterr().out
        runs.main(["--clear", "--yes", "--runs", str(copies)])
    finally:
        _, complaint, code = ended(process)
    assert (code, complaint) == (0, "")
    removed = sorted(capsys.readouterr().out.splitlines())
    assert removed == [f"removed {copies / name}" for name in ("left", "noted")]
    assert sorted(path.name for path in copies.iterdir()) == ["busy", "drawing", "finished", "no run", "noted"]
    assert [path.name for path in (copies / "noted").iterdir()] == ["notes.txt"]
    assert results.load(copies / "busy").sizes["seed"] == 3


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("", False), (EOFError, False)])
def test_at_a_terminal_clearing_asks_first(answer, removed, copies, capsys, monkeypatch):
    asked = Mock(side_effect=[answer])  # An exception is raised.
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", asked)
    size = size_of_abandoned(copies)
    runs.main(["--clear", "--runs", str(copies)])
    asked.assert_called_once_with(f"remove 2 unfinished runs, {size}? [y/N] ")
    assert (copies / "left").exists() != removed
    assert ("nothing was removed" in capsys.readouterr().out) != removed

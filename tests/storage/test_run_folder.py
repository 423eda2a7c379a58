"""The folder of a run: who may have it, and when it is resumed."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from sae_jax import UserError
from sae_jax.storage.record import arguments_of, changed_versions, content_of, differences
from sae_jax.storage.run_folder import (
    UNFINISHED,
    check_claimable,
    claim,
    find_unfinished,
    is_finished,
    is_unfinished,
    new_folder,
    unfinished_record,
)

SETTINGS = {"rho": [0.05, 0.1], "d_hidden": 4, "seeds": [0, 1]}


def content(
    command="python -m experiments.sweep --rho .05 .1 --name 'a b'", devices=2, samples=(), axes=("rho",), **settings
):
    return content_of(
        command, SETTINGS | settings, axes, {"blocks": "auto"}, jax.devices()[:devices], samples, [(3, 2)], "x86_64"
    )


def left(folder, made=None):
    """The folder as a process leaves it that is killed."""
    (folder / UNFINISHED).mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(made or content()))
    return folder


def test_config_json_holds_settings_versions_and_the_command(tmp_path):
    with claim(tmp_path / "run", content()) as before:
        assert before is None
        (tmp_path / "run" / "results.nc").touch()
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored == content() and stored["settings"] == SETTINGS and stored["devices"] == "2 cpu"
    assert {"python", "jax", "optax", "flax", "h5netcdf", "orbax-checkpoint"} <= set(stored["versions"])
    assert arguments_of(stored, "python -m experiments.sweep") == ["--rho", ".05", ".1", "--name", "a b"]
    with pytest.raises(
        UserError, match=r"cannot resume: .*: got python -m experiments.train; use python -m experiments.sweep"
    ):
        arguments_of(stored, "python -m experiments.train")
    assert arguments_of(stored, "sae-jax sweep") == ["--rho", ".05", ".1", "--name", "a b"]
    with pytest.raises(UserError, match=r"got sae-jax train; use sae-jax sweep"):
        arguments_of(stored, "sae-jax train")
    installed = content("sae-jax sweep --rho .05 .1")
    assert arguments_of(installed, "python -m experiments.sweep") == ["--rho", ".05", ".1"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "results.nc"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    check_claimable(tmp_path)
    check_claimable(tmp_path / "missing")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="must be new, empty or of an unfinished run"):
            check_claimable(folder)
    with pytest.raises(UserError, match=r"must be writable: got .*: .*file is a file"):
        check_claimable(tmp_path / "file" / "run" / "deeper")
    with pytest.raises(UserError, match=r"must be writable: got .*: File name too long"):
        check_claimable(tmp_path / ("n" * 300))
    with pytest.raises(UserError, match=r"got '.*\\udcff/run': its path is no text in UTF-8; choose another --name"):
        check_claimable(tmp_path / os.fsdecode(b"\xff") / "run")


def test_a_finished_run_is_neither_begun_again_nor_gone_on_with(tmp_path):
    with claim(tmp_path, content()):
        (tmp_path / "results.nc").touch()
    assert not is_unfinished(tmp_path)
    refused = pytest.raises(UserError, match=r"must be new, empty or of an unfinished run: got .*, which is finished;")
    with refused, claim(tmp_path, content()):
        pass
    with pytest.raises(
        UserError, match=r"cannot resume: the run must be unfinished: got .* which holds a finished run"
    ):
        unfinished_record(tmp_path)
    with pytest.raises(UserError, match=r"cannot resume: the run must be unfinished: got .* which does not exist"):
        unfinished_record(tmp_path / "nowhere")


def test_of_two_that_claim_one_folder_the_second_is_refused_at_once(tmp_path):
    with claim(tmp_path / "run", content()):
        began = time.monotonic()
        with (
            pytest.raises(UserError, match=r"one process at a time may use a run's folder: got .*, in use by another"),
            claim(tmp_path / "run", content()),
        ):
            pass
        assert time.monotonic() - began < 5
        (tmp_path / "run" / "results.nc").touch()


def test_runs_that_are_named_at_once_have_a_folder_each(tmp_path):
    (tmp_path / "run-3").write_text("no folder of ours")
    together = threading.Barrier(6)

    def begin(_):
        together.wait()
        with new_folder(tmp_path / "run") as folder:
            together.wait()
            with claim(folder, content()):
                (folder / "results.nc").touch()
            return folder.name

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(begin, range(6))) == ["run", *(f"run-{number}" for number in (2, 4, 5, 6, 7))]
    with new_folder(tmp_path / "run") as folder:
        assert folder.name == "run-8" and folder.is_dir()
    assert not folder.exists()
    with pytest.raises(UserError, match=r"must be writable: got .*run-3.sweep: .*run-3 is a file; choose"):
        new_folder(tmp_path / "run-3" / "sweep").__enter__()


def test_a_lock_dies_with_its_owner(tmp_path):
    code = (
        "import json, os, sys; from sae_jax.storage.run_folder import claim; from pathlib import Path;"
        "made = json.loads(sys.argv[2]); holder = claim(Path(sys.argv[1]), made); holder.__enter__();"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), json.dumps(content())]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, **streams) as owner:
        assert owner.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=r"one process at a time may use a run's folder: got .*, in use by another"),
            claim(tmp_path / "run", content()),
        ):
            pass
        assert find_unfinished(tmp_path, content()) is None
        owner.kill()
    assert find_unfinished(tmp_path, content()) == tmp_path / "run"
    with claim(tmp_path / "run", content()) as before:
        assert before == content()


def test_a_run_that_fails_before_it_has_kept_anything_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(tmp_path / "run", content()):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["params.safetensors", "state.safetensors"])
def test_parameters_without_results_are_no_obstacle_to_the_same_command(name, tmp_path):
    with pytest.raises(UserError, match="no room"), claim(tmp_path / "run", content()):
        (tmp_path / "run" / name).write_bytes(b"whole")
        raise UserError("no room for results.nc")
    assert not (tmp_path / "run").exists()
    with claim(tmp_path / "run", content()) as before:
        assert before is None


def test_what_a_killed_process_was_writing_is_removed_by_the_one_that_resumes(tmp_path):
    run = left(tmp_path / "run")
    (run / ".removed" / "checkpoints").mkdir(parents=True)
    (run / "figures").mkdir()
    for name in (".results.nc.partial", "figures/.curves.png.partial", ".notes"):
        (run / name).touch()
    with claim(run, content()):
        assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == [
            *(".notes", "config.json", "figures", UNFINISHED)
        ]
        assert not list((run / "figures").iterdir())


def test_what_was_in_the_folder_before_stays(tmp_path):
    (tmp_path / UNFINISHED).mkdir()
    for name in (f"{UNFINISHED}/notes.txt", "config.json", "data.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="must be as the run wrote it at its start"), claim(tmp_path, content()):
        pass
    left_there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left_there == ["config.json", "data.txt", f"{UNFINISHED}/notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt), claim(tmp_path / "empty", content()):
        raise KeyboardInterrupt
    assert not list((tmp_path / "empty").iterdir())


def test_a_run_that_fails_later_leaves_what_it_has_kept(tmp_path):
    state = tmp_path / "run" / UNFINISHED / "checkpoints" / "states" / "000000000"
    with pytest.raises(KeyboardInterrupt), claim(tmp_path / "run", content()):
        state.mkdir(parents=True)
        raise KeyboardInterrupt
    assert state.exists() and is_unfinished(tmp_path / "run")
    with pytest.raises(ValueError), claim(tmp_path / "run", content()) as before:
        assert before == content()
        raise ValueError
    assert state.exists() and is_unfinished(tmp_path / "run")


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_a_run_whose_checkpoints_cannot_be_moved_away_is_unfinished_and_says_so(error, tmp_path, monkeypatch):
    def fails(*names):
        raise OSError(error, os.strerror(error))

    with (
        pytest.raises(UserError, match=f"must be writable: got .*/run: {os.strerror(error)}; .* repeat the command"),
        claim(tmp_path / "run", content()),
    ):
        (tmp_path / "run" / "results.nc").touch()
        monkeypatch.setattr("os.replace", fails)
    monkeypatch.undo()
    assert is_unfinished(tmp_path / "run")
    with claim(tmp_path / "run", content()) as before:
        assert before == content()
    assert is_finished(tmp_path / "run") and not is_unfinished(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "results.nc"]


def test_a_changed_command_is_refused_with_what_has_changed(tmp_path):
    left(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    for changed, words in (
        (
            content(rho=[0.05, 0.2], d_hidden=5),
            r"with rho \[0.05 0.1\] -> \[0.05 0.2\], d_hidden 4 -> 5; repeat python -m",
        ),
        (content(seeds=[0]), r"with seeds \[0 1\] -> \[0\]; repeat"),
        (content(command="python -m experiments.train"), "command .*sweep -> .*train; repeat"),
        (content(axes=["beta", "rho"]), r"with axes \[rho\] -> \[beta rho\]; repeat"),
        (content(samples=[[1.0]]), "with samples; repeat"),
        (content(devices=1), "with devices 2 cpu -> 1 cpu; add --devices 2"),
    ):
        with pytest.raises(UserError, match=words), claim(tmp_path / "run", changed):
            pass
    assert sorted(tmp_path.rglob("*")) == before
    assert differences(content(), content(command="python -m experiments.sweep")) == []


def test_the_newest_run_of_the_same_command_is_found(tmp_path):
    assert find_unfinished(tmp_path / "nowhere", content()) is None
    for age, (name, made) in enumerate(
        [
            ("other", content(d_hidden=5)),
            ("new", None),
            ("old", None),
            ("train", content("python -m experiments.train")),
        ]
    ):
        left(tmp_path / name, made)
        os.utime(tmp_path / name / "config.json", (10**9 - age, 10**9 - age))
    assert find_unfinished(tmp_path, content("sae-jax sweep")) == tmp_path / "new"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "file").touch()
    assert find_unfinished(tmp_path, content()) == tmp_path / "new"
    assert find_unfinished(tmp_path, content(d_hidden=6)) is None


def test_changed_versions_are_named():
    before = content()
    before["versions"] = before["versions"] | {"jax": "0.1", "numpy": None}
    now = content()["versions"]
    assert changed_versions(before, content()) == [f"jax 0.1 -> {now['jax']}", f"numpy None -> {now['numpy']}"]
    assert changed_versions(content(), content()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(content() | {"command": 5}),
        json.dumps(content() | {"command": "an unclosed 'quote"}),
        json.dumps(content() | {"settings": []}),
        json.dumps(content() | {"packing": [[1]]}),
        json.dumps(content() | {"packing": [["1", 2]]}),
        json.dumps(content() | {"packing": [[0, 2]]}),
        json.dumps(content() | {"versions": None}),
        json.dumps(content() | {"devices": None}),
        b"\xff\xfe\x80cos\nsystem",
    ],
)
def test_a_config_json_that_is_none_is_refused(text, tmp_path):
    left(tmp_path)
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(
        UserError,
        match=r"cannot resume: config.json must be as the run wrote it at its start: got .*config.json; choose",
    ):
        unfinished_record(tmp_path)
    with pytest.raises(UserError, match="must be as the run wrote it at its start"), claim(tmp_path, content()):
        pass

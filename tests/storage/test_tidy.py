"""What a process that was killed at the end of a run has left in its folder."""

import os

import pytest

from sae_jax import UserError
from sae_jax.storage.run_folder import check_claimable, claim, held, lock_of, unfinished_record
from tests.storage.test_run_folder import content, left


@pytest.mark.parametrize("begin", [check_claimable, unfinished_record])
def test_a_finished_run_that_is_begun_again_is_rid_of_what_a_killed_process_left(begin, tmp_path):
    with claim(tmp_path, content()):
        (tmp_path / "results.nc").touch()
    (tmp_path / ".removed" / "checkpoints").mkdir(parents=True)
    (tmp_path / ".lock").touch()
    (tmp_path / ".results.nc.partial").touch()
    with lock_of(tmp_path), pytest.raises(UserError):
        begin(tmp_path)
    (tmp_path / ".lock").touch()
    assert (tmp_path / ".removed").exists()
    with pytest.raises(UserError, match="finished"):
        begin(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results.nc"]


LITTER = [(name, kind) for name in (".removed", ".results.nc.partial") for kind in ("pipe", "folder")]


def put(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    else:
        (path / "inner").mkdir(parents=True)


@pytest.mark.parametrize(("name", "kind"), LITTER)
def test_litter_of_any_kind_is_taken_from_a_run_that_is_resumed_or_added_to(name, kind, tmp_path):
    run = left(tmp_path / "run")
    for _ in range(2):
        put(run / name, kind)
        with claim(run, content()) if not (run / "results.nc").exists() else held(run):
            assert not (run / name).exists()
            (run / "results.nc").touch()
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "results.nc"]


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_new_run_ends_whatever_stands_where_its_checkpoints_are_moved(kind, tmp_path):
    put(tmp_path / ".removed", kind)
    with claim(tmp_path, content()):
        (tmp_path / "results.nc").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results.nc"]

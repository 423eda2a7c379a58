"""A checkpoint: all of it or nothing of it, and only what was saved."""

import json
import os
import shutil
import subprocess
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from sae_jax import UserError
from sae_jax.storage import checkpoints
from sae_jax.storage.checkpoints import (
    FORMAT,
    NOTE,
    BrokenCheckpoint,
    Position,
    _digest,
    digests,
    read_arrays,
    read_position,
    write_checkpoint,
)

POSITION = Position(1, 20, 3, 2, 500, 4, finished=False)
RUN = "a run"
ARRAYS = {
    "['lanes'].params": np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32),
    "odd": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "step": np.arange(6, dtype=np.int32),
    "zeros": np.full((2, 2), -0.0, np.float32),
}
EXPECTED = {name: jax.ShapeDtypeStruct(values.shape, values.dtype) for name, values in ARRAYS.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "000000001"
    write_checkpoint(path, RUN, POSITION, ARRAYS)
    return path


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "000000001"))


def test_what_was_saved_is_what_is_read_to_the_bit(saved):
    assert read_position(saved, RUN) == POSITION
    read = read_arrays(saved, EXPECTED)
    assert {name: (values.dtype, values.shape, values.tobytes()) for name, values in read.items()} == {
        name: (values.dtype, values.shape, values.tobytes()) for name, values in ARRAYS.items()
    }
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_checkpoint_of_another_run_is_refused(saved):
    with pytest.raises(BrokenCheckpoint, match="it belongs to another run"):
        read_position(saved, "another")


def test_a_checkpoint_of_another_version_is_refused(saved, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", FORMAT + 1)
    with pytest.raises(BrokenCheckpoint, match="another version of this code has saved it"):
        read_position(saved, RUN)


def test_a_link_in_its_place_is_replaced_and_what_it_leads_to_stays(saved, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    (tmp_path / "000000001").symlink_to("elsewhere")
    write_checkpoint(tmp_path / "000000001", RUN, POSITION, ARRAYS)
    assert read_position(tmp_path / "000000001", RUN) == POSITION and (tmp_path / "elsewhere" / "mine").exists()


def test_a_checkpoint_of_the_same_name_is_replaced(copied):
    write_checkpoint(copied, RUN, POSITION._replace(step=501), {"other": np.ones(3)})
    assert read_position(copied, RUN).step == 501
    assert read_arrays(copied, {"other": jax.ShapeDtypeStruct((3,), np.float64)})["other"].tolist() == [1, 1, 1]


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"\n")


def linked(path):
    os.replace(path, path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


FAULTS = [truncated, emptied, flipped, lengthened, Path.unlink, linked]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_any_file_is_noticed_and_the_file_named(fault, saved, tmp_path):
    names = [path.relative_to(saved) for path in sorted(saved.rglob("*")) if path.is_file()]
    assert len(names) >= 8
    for i, name in enumerate(names):
        copy = Path(shutil.copytree(saved, tmp_path / str(i)))
        fault(copy / name)
        if (name.name, fault) == (NOTE, lengthened):
            assert read_position(copy, RUN) == POSITION  # It says the same.
            continue
        with pytest.raises(BrokenCheckpoint) as refused:
            read_position(copy, RUN)
        assert any(part in str(refused.value) for part in (name.as_posix(), name.name, "elsewhere"))


def test_anything_beside_its_files_is_refused(copied):
    (copied / "arrays" / "more").write_text("mine")
    with pytest.raises(BrokenCheckpoint, match="arrays/more does not belong to it"):
        read_position(copied, RUN)
    with pytest.raises(BrokenCheckpoint, match="No such file or directory"):
        read_position(copied / "nowhere", RUN)


@pytest.mark.parametrize(
    "note",
    [
        "[]",
        "null",
        "{" * 100_000,
        '{"files": {}}',
        '{"files": {}, "position": {}}',
        '{"files": [], "position": []}',
        json.dumps({"files": {}, "position": POSITION._replace(first=-1)._asdict()}),
        json.dumps({"files": {}, "position": POSITION._replace(cells_per_block=0)._asdict()}),
        json.dumps({"files": {}, "position": POSITION._replace(step="5")._asdict()}),
        json.dumps({"files": {}, "position": POSITION._replace(finished=1)._asdict()}),
    ],
)
def test_a_note_that_is_none_is_refused(note, copied):
    (copied / NOTE).write_text(note)
    with pytest.raises(BrokenCheckpoint, match="is no note of a checkpoint"):
        read_position(copied, RUN)


def forge(path, more=()):
    """Write a note that fits whatever a checkpoint holds, as only somebody who means harm would."""
    note = {"format": FORMAT, "run": RUN, "position": POSITION._asdict(), "files": digests(path) | dict(more)}
    (path / NOTE).write_text(json.dumps(note | {"digest": _digest(note)}))


def test_digests_leave_no_way_out_of_the_folder(copied, tmp_path):
    (tmp_path / "secret").write_text("secret")
    forge(copied, {"../secret": "0"})
    with pytest.raises(BrokenCheckpoint, match=r"\.\./secret is missing"):
        read_position(copied, RUN)
    shutil.rmtree(copied / "arrays")
    (copied / "arrays").symlink_to(tmp_path)
    with pytest.raises(BrokenCheckpoint, match="arrays is no plain file"):
        read_position(copied, RUN)
    (tmp_path / "link").symlink_to(copied)
    with pytest.raises(BrokenCheckpoint, match="it is a link"):
        read_position(tmp_path / "link", RUN)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (EXPECTED | {"odd": jax.ShapeDtypeStruct((5,), np.float32)}, r"odd is float32 \[4\] .*, float32 \[5\] in this"),
        (EXPECTED | {"odd": jax.ShapeDtypeStruct((4,), np.int32)}, r"odd is float32 \[4\] .*, int32 \[4\] in this run"),
        (EXPECTED | {"more": EXPECTED["odd"]}, r"more is none in the checkpoint, float32 \[4\] in this run"),
        ({"odd": EXPECTED["odd"]}, r"is float32 \[2, 3, 5, 4\] in the checkpoint, none in this run"),
    ],
)
def test_arrays_of_another_run_are_refused(other, difference, saved):
    with pytest.raises(
        UserError, match=rf"cannot resume: a checkpoint must hold the lanes of this run: got .*: array .*{difference}"
    ):
        read_arrays(saved, other)


def test_a_forged_checkpoint_is_refused(copied):
    for name in ("_METADATA", "manifest.ocdbt"):
        for content in (b"", b"[]", b"\x80\x04cos\nsystem\n", b'{"tree_metadata": {"x": {"value_metadata": 1}}}'):
            (copied / "arrays" / name).write_bytes(content)
            forge(copied)
            read_position(copied, RUN)
            with pytest.raises(UserError, match="must hold the lanes of this run"):
                read_arrays(copied, EXPECTED)


def test_a_disk_that_is_full_leaves_the_checkpoint_before(copied, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = digests(copied)
    for name in ("os.replace", "os.fsync", "pathlib.Path.mkdir"):
        with monkeypatch.context() as patched:
            patched.setattr(name, full)
            with pytest.raises(UserError, match=r"must be writable: got .*: No space left on device; make room"):
                write_checkpoint(copied.with_name("000000002"), RUN, POSITION, ARRAYS)
        assert [path.name for path in copied.parent.iterdir()] == [copied.name]
    assert read_position(copied, RUN) == POSITION and digests(copied) == before


def test_a_small_disk_that_is_full_leaves_the_checkpoint_before(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no file systems for us")
    try:
        write_checkpoint(disk / "000000001", RUN, POSITION, ARRAYS)
        with pytest.raises(UserError, match=r"must be writable: got .*space"):
            write_checkpoint(disk / "000000002", RUN, POSITION, {"large": np.random.default_rng(0).normal(size=2**20)})
        assert [path.name for path in disk.iterdir()] == ["000000001"]
        assert read_position(disk / "000000001", RUN) == POSITION
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_has_vanished_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"must be writable: got .*gone: No such file or directory"):
        write_checkpoint(tmp_path / "gone" / "000000001", RUN, POSITION, ARRAYS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_folder_that_vanishes_while_it_is_written_to_is_not_made_again(how, when, tmp_path, monkeypatch):
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "000000001", RUN, POSITION, ARRAYS)
    saver = checkpoints.orbax_checkpointer()

    class Vanishing:
        def save(self, path, arrays):
            for step in ("before", "after"):
                if step == "after":
                    saver.save(path, arrays)
                if step == when:
                    runs.rename(tmp_path / "away") if how == "moved" else shutil.rmtree(folder)

    monkeypatch.setattr(checkpoints, "orbax_checkpointer", Vanishing)
    with pytest.raises(UserError, match=r"must be writable: got .*: No such file or directory"):
        write_checkpoint(folder / "000000002", RUN, POSITION, ARRAYS)
    assert not folder.exists()
    if how == "moved":
        assert not runs.exists() and read_position(tmp_path / "away" / "run" / "000000001", RUN) == POSITION


def test_only_a_write_that_ends_after_anothers_error_goes_unsaid(capsys):
    for words, said in (("Event loop is closed", False), ("Something else is", True)):
        unraisable = types.SimpleNamespace(exc_value=RuntimeError(words))
        checkpoints._report_unless_late(lambda one: print(one.exc_value), unraisable)
        assert (words in capsys.readouterr().out) == said

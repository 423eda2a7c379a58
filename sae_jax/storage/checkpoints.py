"""A checkpoint: a folder of arrays that appears in one move, and that is read only if it is what was saved."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.atomic import mend_unread, move, read_file, reason_of, remove_tree, unwritable, write_file

Arrays = dict[str, np.ndarray]
NOTE, ARRAYS = "note.json", "arrays"
# One more where the arrays of an earlier checkpoint, of the same names and shapes, mean something else.
FORMAT = 6


class BrokenCheckpoint(Exception):
    """A checkpoint is not what was saved."""


class Position(NamedTuple):
    """Where a checkpoint stands.

    Attributes:
        program: number of the program.
        first: number of the chunk's first lane (see `plan.Chunk`).
        cells_per_block, blocks_per_group: how lanes were packed; bits depend on it.
        step: steps taken.
        points: logged points among them.
        finished: whether the arrays are the results of finished lanes, not the state of lanes in training.
    """

    program: int
    first: int
    cells_per_block: int
    blocks_per_group: int
    step: int
    points: int
    finished: bool


def write_checkpoint(path: Path, run: str, position: Position, arrays: Arrays) -> None:
    """Write a checkpoint: all of it appears in one move, once it is on the disk.

    Args:
        path: replaced where it exists.
        run: the identity of its run.
        position: where it stands.
        arrays: by name, none of them without numbers.

    Raises:
        UserError: the folder cannot be written to.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.mkdir()
        with _stable_folder(partial):
            orbax_checkpointer().save((partial / ARRAYS).absolute(), arrays)
            note = {"format": FORMAT, "run": run, "position": position._asdict(), "files": digests(partial)}
            write_file(partial / NOTE, (json.dumps(note | {"digest": _digest(note)}, indent=1) + "\n").encode())
        remove_tree(path, strict=True)
        move(partial, path)
    except Exception as error:
        remove_tree(partial)
        raise unwritable(path.parent, _system_error(error)) from None


def _system_error(error: Exception) -> Exception:
    """The OSError behind an error: a full disk is a ValueError to tensorstore, which names the system's number."""
    number = re.search(r"os_error_code='([0-9]+)'", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


@contextlib.contextmanager
def _stable_folder(folder: Path) -> Iterator[None]:
    """Take away what the body made where a folder lay that was moved away meanwhile: the library makes it again.

    Raises:
        FileNotFoundError: the folder was moved away, whatever the body raised.
    """
    parents = list(folder.absolute().parents)
    stats = [os.stat(parent) for parent in parents]
    descriptor = os.open(folder, os.O_RDONLY)  # Or a folder made again could get the number of the one taken away.
    try:
        yield
    finally:
        in_place = _is_same(folder, os.fstat(descriptor))
        os.close(descriptor)
        if not in_place:
            remove_tree(folder)
            for parent, stat, stat_above in zip(parents, stats, stats[1:], strict=False):
                # Neither what is still itself nor what a disk was mounted on has been made again.
                if _is_same(parent, stat) or stat.st_dev != stat_above.st_dev:
                    break
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _is_same(path: Path, stat: os.stat_result) -> bool:
    """Whether a path leads to the file or folder that a stat describes."""
    try:
        return os.path.samestat(path.stat(), stat)
    except OSError:
        return False


def read_position(path: Path, run: str) -> Position:
    """Where a checkpoint stands, every one of its files compared with its digest.

    Args:
        path: its folder.
        run: the identity of its run.

    Raises:
        BrokenCheckpoint: it is not what was saved; the message names the file.
        UserError: whether it is cannot be seen, for want of rights, of files to open or of memory.
    """
    if path.is_symlink():
        raise BrokenCheckpoint("it is a link")
    try:
        note = json.loads(read_file(path / NOTE))
        files, position = dict(note["files"]), Position(**note["position"])
        if any(type(value) is not int or value < 0 for value in position[:-1]) or type(position.finished) is not bool:
            raise ValueError
        if not position.cells_per_block or not position.blocks_per_group:
            raise ValueError
        if note.pop("digest") != _digest(note):
            raise BrokenCheckpoint(f"{NOTE} has changed")
        if note.get("format") != FORMAT:
            raise BrokenCheckpoint("another version of this code has saved it")
        if note["run"] != run:
            raise BrokenCheckpoint("it belongs to another run")
        current = digests(path)
    except OSError as error:
        # What stands on a disk that fails is lost; what this process may not read is not.
        if error.errno != errno.EIO and (fix := mend_unread(error, "")):
            raise _unreadable(path, error, fix) from None
        raise BrokenCheckpoint(f"{Path(error.filename or path).name}: {reason_of(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BrokenCheckpoint(f"{NOTE} is no note of a checkpoint") from None
    for name in sorted(current.keys() | files.keys()):
        if name not in current:
            raise BrokenCheckpoint(f"{name} is missing")
        if name not in files:
            raise BrokenCheckpoint(f"{name} does not belong to it")
        if current[name] != files[name]:
            raise BrokenCheckpoint(f"{name} has changed")
    return position


def read_arrays(path: Path, expected: Mapping[str, jax.ShapeDtypeStruct]) -> Arrays:
    """The arrays of a checkpoint that `read_position` has checked.

    Raises:
        UserError: they are not those expected.
    """
    checkpointer, place = orbax_checkpointer(), (path / ARRAYS).absolute()
    try:
        # Shapes are compared before memory is taken for them.
        stored = checkpointer.metadata(place).item_metadata.tree
        _check_shapes(stored, expected)
        return dict(checkpointer.restore(place))
    except Exception as error:  # What a hostile file brings about in the library is refused, whatever it is.
        raise _unreadable(path, error, mend_unread(_system_error(error), "remove it to train them again")) from None


def _unreadable(path: Path, error: Exception, fix: str) -> UserError:
    return UserError(
        f"cannot resume: a checkpoint must hold the lanes of this run: got {path}: {reason_of(error)}; {fix}"
    )


def _check_shapes(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse arrays of other names, shapes or dtypes than those expected.

    Raises:
        ValueError: there are some; the message names the first of them.
    """
    for name in sorted(stored.keys() | expected.keys()):
        before, now = (
            f"{np.dtype(arrays[name].dtype)} {list(arrays[name].shape)}" if name in arrays else "none"
            for arrays in (stored, expected)
        )
        if before != now:
            raise ValueError(f"array {name} is {before} in the checkpoint, {now} in this run")


def _digest(note: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file under a checkpoint's folder but its note, by relative name.

    Raises:
        BrokenCheckpoint: something in it is neither a file nor a folder, such as a link that leads elsewhere.
        OSError: a file cannot be read.
    """
    sums = {}
    for folder, folders, files in os.walk(path, onerror=_refuse):
        for name in folders + files:
            item = Path(folder, name)
            if item.is_symlink() or not (item.is_file() or item.is_dir()):
                raise BrokenCheckpoint(f"{item.relative_to(path)} is no plain file")
        for name in files:
            item = Path(folder, name)
            if item != path / NOTE:
                with item.open("rb") as stream:
                    sums[item.relative_to(path).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _refuse(error: OSError) -> None:
    raise error


@functools.lru_cache(maxsize=1)
def orbax_checkpointer() -> Any:
    """Writes and reads a flat dict of arrays as a folder, on one process."""
    import orbax.checkpoint as ocp  # type: ignore[import-untyped]  # Training need not wait for it.

    # What it says about errors in its threads is raised, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    sys.unraisablehook = functools.partial(_report_unless_late, sys.unraisablehook)
    single_process = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="sae_jax"
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=single_process)
    return ocp.Checkpointer(handler, multiprocessing_options=single_process)


def _report_unless_late(report: Callable[[Any], Any], unraisable: Any) -> None:
    """Report what could not be raised, unless it is that a write ended after another one's error had been raised."""
    if str(unraisable.exc_value) != "Event loop is closed":
        report(unraisable)

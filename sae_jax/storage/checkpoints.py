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
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.arrays import sync, unwritable

Arrays = dict[str, np.ndarray]
NOTE, ARRAYS = "note.json", "arrays"
# Of what is kept of a lane. Another one's arrays may have the same names and shapes, and mean something else.
FORMAT = 4


class Broken(Exception):
    """A checkpoint is not what was saved."""


class Position(NamedTuple):
    """Where a checkpoint stands.

    Attributes:
        program: number of the program.
        first: number of the chunk's first lane (see `plan.Chunk`).
        cells_per_block, blocks_per_group: how lanes were packed; bits depend on it.
        step: steps taken.
        points: logged points among them.
        finished: whether the arrays are what was found of finished lanes, not the state of lanes in training.
    """

    program: int
    first: int
    cells_per_block: int
    blocks_per_group: int
    step: int
    points: int
    finished: bool


def write(path: Path, run: str, position: Position, arrays: Arrays) -> None:
    """Write a checkpoint: all of it appears in one move, once it is on the disk.

    Args:
        path: replaced where it exists.
        run: by what its run is known again.
        position: where it stands.
        arrays: by name, none of them without numbers.

    Raises:
        UserError: the folder cannot be written to.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.mkdir()
        with _in_its_place(partial):
            orbax_checkpointer().save((partial / ARRAYS).absolute(), arrays)
            note = {"format": FORMAT, "run": run, "position": position._asdict(), "files": digests(partial)}
            with (partial / NOTE).open("w") as stream:
                stream.write(json.dumps(note | {"digest": _digest(note)}, indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        remove(path)
        os.replace(partial, path)
        sync(path.parent)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        # A full disk is an OSError to Python and a ValueError to tensorstore.
        number = re.search(r"os_error_code='([0-9]+)'", str(error))
        reason = getattr(error, "strerror", None) or (os.strerror(int(number[1])) if number else _line(error))
        raise unwritable(path.parent, reason) from None


@contextlib.contextmanager
def _in_its_place(folder: Path) -> Iterator[None]:
    """Take away what the body made where a folder lay that was moved away meanwhile: the library makes it again.

    Raises:
        FileNotFoundError: the folder was moved away, whatever the body raised.
    """
    above = list(folder.absolute().parents)
    before = [os.stat(one) for one in above]
    held = os.open(folder, os.O_RDONLY)  # Or a folder made again could get the number of the one taken away.
    try:
        yield
    finally:
        there = _is(folder, os.fstat(held))
        os.close(held)
        if not there:
            shutil.rmtree(folder, ignore_errors=True)
            for one, was, over in zip(above, before, before[1:], strict=False):
                # Neither what is still itself nor what a disk was mounted on has been made again.
                if _is(one, was) or was.st_dev != over.st_dev:
                    break
                with contextlib.suppress(OSError):
                    one.rmdir()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _is(path: Path, known: os.stat_result) -> bool:
    """Whether a path leads to what is known by its number."""
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Take away a checkpoint, or whatever stands in its place; where a link leads stays as it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checked(path: Path, run: str) -> Position:
    """Where a checkpoint stands, every one of its files compared with its digest.

    Args:
        path: its folder.
        run: by what its run is known again.

    Raises:
        Broken: it is not what was saved; the message names the file.
    """
    if path.is_symlink():
        raise Broken("it is a link")
    try:
        note = json.loads((path / NOTE).read_bytes())
        files, position = dict(note["files"]), Position(**note["position"])
        if any(type(value) is not int or value < 0 for value in position[:-1]) or type(position.finished) is not bool:
            raise ValueError
        if not position.cells_per_block or not position.blocks_per_group:
            raise ValueError
        if note.pop("digest") != _digest(note):
            raise Broken(f"{NOTE} has changed")
        if note.get("format") != FORMAT:
            raise Broken("another version of this code has saved it")
        if note["run"] != run:
            raise Broken("it belongs to another run")
        found = digests(path)
    except OSError as error:
        raise Broken(f"{Path(error.filename or path).name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Broken(f"{NOTE} is no note of a checkpoint") from None
    for name in sorted(found.keys() | files.keys()):
        if name not in found:
            raise Broken(f"{name} is missing")
        if name not in files:
            raise Broken(f"{name} does not belong to it")
        if found[name] != files[name]:
            raise Broken(f"{name} has changed")
    return position


def arrays_of(path: Path, expected: Mapping[str, jax.ShapeDtypeStruct]) -> Arrays:
    """The arrays of a checkpoint that has been `checked`.

    Raises:
        UserError: they are not those expected.
    """
    checkpointer, place = orbax_checkpointer(), (path / ARRAYS).absolute()
    try:
        # Shapes are compared before memory is taken for them.
        stored = checkpointer.metadata(place).item_metadata.tree
        described = {name: (tuple(one.shape), np.dtype(one.dtype)) for name, one in stored.items()}
        wanted = {name: (tuple(one.shape), np.dtype(one.dtype)) for name, one in expected.items()}
        if described != wanted:
            raise ValueError("its arrays are not those of this run")
        return dict(checkpointer.restore(place))
    except Exception as error:  # What a hostile file brings about in the library is refused, whatever it is.
        raise UserError(
            f"a checkpoint must hold the lanes of this run: got {path}: {_line(error)}; remove it to train them again"
        ) from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _digest(note: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file under a checkpoint's folder but its note, by relative name.

    Raises:
        Broken: something in it is neither a file nor a folder, such as a link that leads elsewhere.
        OSError: a file cannot be read.
    """
    found = {}
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            one = Path(folder, name)
            if one.is_symlink() or not (one.is_file() or one.is_dir()):
                raise Broken(f"{one.relative_to(path)} is no plain file")
        for name in files:
            one = Path(folder, name)
            if one != path / NOTE:
                with one.open("rb") as stream:
                    found[one.relative_to(path).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


@functools.lru_cache(maxsize=1)
def orbax_checkpointer() -> Any:
    """Writes and reads a flat dict of arrays as a folder, on one process."""
    import orbax.checkpoint as ocp  # type: ignore[import-untyped]  # Training need not wait for it.

    # What it says about errors in its threads is raised, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    sys.unraisablehook = functools.partial(_unless_late, sys.unraisablehook)
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="sae_jax"
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _unless_late(say: Callable[[Any], Any], unraisable: Any) -> None:
    """Say what could not be raised, unless it is that a write ended after another one's error had been raised."""
    if str(unraisable.exc_value) != "Event loop is closed":
        say(unraisable)

"""The folder of a run: started once, used by one process at a time, and resumed until the run is finished."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from sae_jax.settings import UserError
from sae_jax.storage.atomic import PERMISSIONS, move, remove_partial, remove_tree, unwritable, write_file, writing
from sae_jax.storage.provenance import LOG_FILE, PROVENANCE_FILE, TENSORBOARD, WANDB
from sae_jax.storage.record import CONFIG_FILE, check_same, command_name, differences, read_record
from sae_jax.storage.results import PARAMS_FILE, RESULTS_FILE
from sae_jax.storage.states import STATE_FILE

LOCK_FILE, UNFINISHED, REMOVED, CHECKPOINTS = ".lock", "unfinished", ".removed", "checkpoints"
OTHER_RUN_FOLDER = "choose another --name or --runs"
# What a run is known by comes last: without it, what is left would not be found again.
RECORD_FILES = (PARAMS_FILE, STATE_FILE, LOG_FILE, PROVENANCE_FILE, CONFIG_FILE)
OWN_FILES = (RESULTS_FILE, *RECORD_FILES)


def identity(folder: Path) -> str:
    """The identity of a run: a digest of its config.json."""
    return hashlib.sha256((folder / CONFIG_FILE).read_bytes()).hexdigest()


def unfinished_record(folder: Path) -> dict[str, Any]:
    """The record of an unfinished run, from its config.json.

    Raises:
        UserError: there is none, it is not what its name says, or the run is finished.
    """
    if is_unfinished(folder):
        return read_record(folder / CONFIG_FILE)
    content = "which holds no run" if os.path.exists(folder) else "which does not exist"
    tidy(folder)
    if os.path.isfile(folder / RESULTS_FILE):
        content = "which holds a finished run"
    raise UserError(f"cannot resume: the run must be unfinished: got {folder}, {content}; see --runs")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that was started and has not written all of its files."""
    started = os.path.isfile(folder / CONFIG_FILE)
    return started and (os.path.isdir(folder / UNFINISHED) or not os.path.exists(folder / RESULTS_FILE))


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return os.path.isfile(folder / RESULTS_FILE) or is_unfinished(folder)


def is_finished(folder: Path) -> bool:
    """Whether a folder, which is no link to one, holds a run that has written all of its files."""
    files = all(os.path.isfile(folder / name) for name in (CONFIG_FILE, RESULTS_FILE))
    return files and not folder.is_symlink() and not is_unfinished(folder)


def check_finished(folder: Path) -> None:
    """Refuse an unfinished run, whose results are written at its end.

    Raises:
        UserError: it is one.
    """
    if is_unfinished(folder):
        fix = f"resume it by the command that began it: --resume {folder}"
        raise UserError(f"a run must be finished: got {folder}, an unfinished one; {fix}")


def check_claimable(folder: Path) -> None:
    """Refuse a folder that holds something else than an unfinished run, or that could not be made.

    Raises:
        UserError: it does, it is no folder, or the folder that would hold it cannot be written to.
    """
    with writing(folder, fix=_instead_of(folder)):
        occupied = folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir()))
        )
        unfinished = is_unfinished(folder) and not folder.is_symlink()
    if occupied and not unfinished:
        finished = ""
        if all((folder / name).is_file() for name in (CONFIG_FILE, RESULTS_FILE)):
            finished = ", which is finished"
            tidy(folder)
        raise UserError(
            f"the run's folder must be new, empty or of an unfinished run: got {folder}{finished}; "
            "choose another --name"
        )
    _check_makeable(folder)


def _instead_of(folder: Path) -> str:
    """What to do where a new run's folder cannot be made; "" for a run that is resumed, which can have no other."""
    return "" if is_unfinished(folder) else OTHER_RUN_FOLDER


def _check_makeable(folder: Path) -> None:
    fix = _instead_of(folder)
    with writing(folder, fix=fix):
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:  # The library of the checkpoints takes no other.
        raise unwritable(Path(ascii(str(folder.absolute()))), "its path is no text in UTF-8", fix=fix) from None
    if not parent.is_dir():
        raise unwritable(folder, f"{parent} is a file", fix=fix)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise unwritable(folder, f"{parent} is read-only", fix=fix or PERMISSIONS)


def find_unfinished(
    runs: Path, content: Mapping[str, Any], unnamed: Mapping[str, Any] = MappingProxyType({})
) -> Path | None:
    """The newest folder of an unfinished run of the same command that no process is using; None without one.

    Args:
        runs: the folder of all runs.
        content: as `content_of` returns it.
        unnamed: as in `differences`.
    """
    candidates = []
    with contextlib.suppress(OSError):
        for folder in runs.iterdir():
            with contextlib.suppress(UserError, OSError):
                before = unfinished_record(folder)
                same = command_name(before["command"]) == command_name(content["command"])
                if same and not differences(before, content, unnamed):
                    candidates.append(((folder / CONFIG_FILE).stat().st_mtime, folder))
    return next((folder for _, folder in sorted(candidates, reverse=True) if not is_locked(folder)), None)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that no other process has made: of this name, or with -2, -3, ... after it; removed if it stays empty.

    Raises:
        UserError: it cannot be made.
    """
    _check_makeable(path)
    with writing(path, fix=OTHER_RUN_FOLDER):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
            # Making it is the one step that of several processes a single one can do.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # It holds something.
            folder.rmdir()


@contextlib.contextmanager
def claim(
    folder: Path, content: Mapping[str, Any], unnamed: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[dict[str, Any] | None]:
    """Lock a run's folder, made with config.json in it before anything is trained, or that of a run to resume.

    Where the body ends well, the run is finished, and its checkpoints are removed. Where it fails before there is a
    checkpoint, all that was made is removed.

    Args:
        folder: new, empty, or of an unfinished run.
        content: as `content_of` returns it.
        unnamed: as in `differences`.

    Returns:
        What config.json held where the run was started before; None for a new run.

    Raises:
        UserError: the folder holds another run, one of another command, or one that a process is using, or it cannot
            be written to.
    """
    check_claimable(folder)
    made_here = not folder.exists()
    lock = lock_of(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"one process at a time may use a run's folder: got {folder}, in use by another; "
            "wait for its end or choose another --name"
        ) from None
    except OSError as error:
        raise unwritable(folder, error, fix=_instead_of(folder)) from None
    new_run = False
    try:
        check_claimable(folder)  # The process that held the lock a moment ago may have finished the run.
        before = unfinished_record(folder) if is_unfinished(folder) else None
        if before:
            check_same(folder, before, content, unnamed)
        new_run = before is None
        with writing(folder):
            if new_run:
                write_file(folder / CONFIG_FILE, (json.dumps(content, indent=2) + "\n").encode())
            else:
                _remove_litter(folder)
            (folder / UNFINISHED).mkdir(exist_ok=True)
        yield before
        try:  # In one move, or a process that is killed meanwhile would leave a run that cannot be resumed.
            remove_tree(folder / REMOVED)
            move(folder / UNFINISHED, folder / REMOVED)
        except OSError as error:
            if (folder / UNFINISHED).exists():  # Else somebody has removed it, or it is moved, if not yet on the disk.
                raise unwritable(folder, error) from None
        remove_tree(folder / REMOVED)
    except BaseException:
        if new_run and not _has_results(folder):
            remove_tree(folder / UNFINISHED)
            with contextlib.suppress(OSError):  # The folder may have vanished.
                remove_record(folder)
        raise
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink()
        lock.release()
        if made_here:
            with contextlib.suppress(OSError):  # It holds something.
                folder.rmdir()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock on a finished run's folder, so that what is read there is what is added to.

    Processes that want it at once wait for each other. What a process has left that was killed is taken away.

    Raises:
        UserError: the run is not finished, or its folder cannot be written to.
    """
    lock = lock_of(folder)
    with writing(folder):
        lock.acquire(timeout=-1)
    try:
        check_finished(folder)
        _remove_litter(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink()
        lock.release()


def tidy(folder: Path) -> None:
    """Take away what a process that was killed at its end has left in a finished run's folder, unless it is in use."""
    if is_finished(folder) and any((folder / name).exists() for name in (LOCK_FILE, REMOVED)):
        with contextlib.suppress(Timeout, OSError, UserError), lock_of(folder):
            _remove_litter(folder)
            (folder / LOCK_FILE).unlink()


def _remove_litter(folder: Path) -> None:
    """Remove what a process has left in a run's folder that was killed while it moved or wrote something."""
    remove_tree(folder / REMOVED)
    remove_partial(folder)


def remove_record(folder: Path) -> None:
    """Remove what a run without results tells of itself, and parameters that were written; what else is there stays.

    Raises:
        OSError: the file system refuses.
    """
    for name in (TENSORBOARD, WANDB):
        remove_tree(folder / name)
    for name in RECORD_FILES:
        (folder / name).unlink(missing_ok=True)


def lock_of(folder: Path) -> FileLock:
    """The lock on a folder; the system takes it from a process that ends."""
    return FileLock(folder / LOCK_FILE, timeout=0, fallback_to_soft=False)


def is_locked(folder: Path) -> bool:
    """Whether a process is using a folder."""
    try:
        with lock_of(folder):
            return False
    except (Timeout, OSError):
        return True


def _has_results(folder: Path) -> bool:
    """Whether there are results, or a checkpoint that a later process could resume from."""
    return (folder / RESULTS_FILE).exists() or any((folder / UNFINISHED / CHECKPOINTS).glob("*/*"))

"""The folder of a run: begun once, held by one process at a time, and gone on with until it is finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_jax.settings import UserError
from sae_jax.storage.arrays import unwritable
from sae_jax.storage.record import CONFIG_FILE, check_same, command_name, differences, read_record
from sae_jax.storage.results import RESULTS_FILE

LOCK_FILE, UNFINISHED, REMOVED, CHECKPOINTS = ".lock", "unfinished", ".removed", "checkpoints"


def identity(folder: Path) -> str:
    """By what a run is known again: a digest of its config.json."""
    return hashlib.sha256((folder / CONFIG_FILE).read_bytes()).hexdigest()


def recorded(folder: Path) -> dict[str, Any]:
    """The content of an unfinished run's config.json.

    Raises:
        UserError: there is none, it is not what its name says, or the run is finished.
    """
    path = folder / CONFIG_FILE
    if not is_unfinished(folder):
        found = "a finished run" if os.path.isfile(folder / RESULTS_FILE) else "none" if os.path.exists(folder) else ""
        held = f"which holds {found}" if found else "which does not exist"
        raise UserError(f"a run to go on with must be unfinished: got {folder}, {held}; see --runs")
    return read_record(path)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that has begun and has not written all of its files."""
    begun = os.path.isfile(folder / CONFIG_FILE)
    return begun and (os.path.isdir(folder / UNFINISHED) or not os.path.exists(folder / RESULTS_FILE))


def check_claimable(folder: Path) -> None:
    """Refuse a folder that holds something else than an unfinished run, or that could not be made.

    Raises:
        UserError: it does, it is no folder, or the folder that would hold it cannot be written to.
    """
    try:
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        taken = folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir()))
        )
        unfinished = is_unfinished(folder) and not folder.is_symlink()
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    if taken and not unfinished:
        finished = (
            ", which is finished" if all((folder / name).is_file() for name in (CONFIG_FILE, RESULTS_FILE)) else ""
        )
        raise UserError(
            f"the run's folder must be new, empty or of an unfinished run: got {folder}{finished}; "
            "choose another --name"
        )
    if not parent.is_dir():
        raise unwritable(folder, f"{parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise unwritable(folder, f"{parent} is read-only")


def find_unfinished(runs: Path, content: Mapping[str, Any]) -> Path | None:
    """The newest folder of an unfinished run of the same command that no process is at work in; None without one."""
    found = []
    with contextlib.suppress(OSError):
        for folder in runs.iterdir():
            with contextlib.suppress(UserError, OSError):
                before = recorded(folder)
                same = command_name(before["command"]) == command_name(content["command"])
                if same and not differences(before, content):
                    found.append(((folder / CONFIG_FILE).stat().st_mtime, folder))
    return next((folder for _, folder in sorted(found, reverse=True) if not _held(folder)), None)


@contextlib.contextmanager
def claim(folder: Path, content: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Hold a run's folder: made, with config.json in it, before anything is trained, or gone on with.

    Where the body ends well, the run is finished, and what was there to go on with is taken away. Where it fails before
    it has kept anything, all that was made is taken away again.

    Args:
        folder: new, empty, or of an unfinished run.
        content: as `content_of` returns it.

    Returns:
        What config.json held where the run had begun before; None for a new run.

    Raises:
        UserError: the folder holds another run, one of another command, or one that a process is at work in, or it
            cannot be written to.
    """
    check_claimable(folder)
    new_folder = not folder.exists()
    lock = _lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"one process at a time may be at work in a run's folder: got {folder}, held by another; "
            "wait for its end or choose another --name"
        ) from None
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    begun = False
    try:
        check_claimable(folder)  # The process that held it a moment ago may have finished it.
        before = recorded(folder) if is_unfinished(folder) else None
        if before:
            check_same(folder, before, content)
        try:
            if before is None:
                _write(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
                begun = True
            (folder / UNFINISHED).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error.strerror) from None
        yield before
        # In one move, or a process that is killed meanwhile would leave a run that cannot be gone on with.
        with contextlib.suppress(OSError):  # Somebody has taken it away.
            os.replace(folder / UNFINISHED, folder / REMOVED)
        shutil.rmtree(folder / REMOVED, ignore_errors=True)
    except BaseException:
        if begun and not _kept(folder):
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
            with contextlib.suppress(OSError):  # The folder may have vanished.
                (folder / CONFIG_FILE).unlink()
        raise
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink()
        lock.release()
        if new_folder:
            with contextlib.suppress(OSError):  # It holds something.
                folder.rmdir()


def _lock(folder: Path) -> FileLock:
    """The lock on a folder; the system takes it from a process that ends."""
    return FileLock(folder / LOCK_FILE, timeout=0, fallback_to_soft=False)


def _held(folder: Path) -> bool:
    """Whether a process is at work in a folder."""
    try:
        with _lock(folder):
            return False
    except (Timeout, OSError):
        return True


def _kept(folder: Path) -> bool:
    """Whether there is anything that a later process could go on with."""
    return (folder / RESULTS_FILE).exists() or any((folder / UNFINISHED / CHECKPOINTS).glob("*/*"))


def _write(path: Path, text: str) -> None:
    """Write a file that appears in one move, once it is on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # A link that somebody has left there would be written through.
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)

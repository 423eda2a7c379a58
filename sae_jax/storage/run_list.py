"""The runs below a folder: which are finished, unfinished or in use, and how those that were abandoned are removed."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from sae_jax.settings import UserError
from sae_jax.storage.atomic import mend_unread, move, reason_of, remove_tree, writing
from sae_jax.storage.results import RESULTS_FILE
from sae_jax.storage.run_folder import (
    LOCK_FILE,
    REMOVED,
    UNFINISHED,
    check_finished,
    holds_run,
    is_locked,
    is_unfinished,
    lock_of,
    remove_record,
)

FINISHED, IN_USE = "finished", "in use"


class Run(NamedTuple):
    """A run's folder.

    Attributes:
        folder: it.
        state: finished, unfinished or in use.
        size: bytes on the disk.
        age: seconds since the last of its files was changed.
        has_results: whether its results are written; an unfinished run may lack no more than its figures.
    """

    folder: Path
    state: str
    size: int
    age: float
    has_results: bool

    @property
    def abandoned(self) -> bool:
        """Whether it has no results, and no process works on it."""
        return self.state == UNFINISHED and not self.has_results


def folder_of(run: str | Path, runs: str | Path = "runs") -> Path:
    """The folder of a finished run, by its path or by its name among all runs.

    Raises:
        UserError: it is unfinished; `sae_jax.storage.results.load` says what else may be wrong.
    """
    folder, named = Path(run), Path(runs) / run
    # A folder of samples may have the name of a run that was trained on them.
    if not holds_run(folder) and (holds_run(named) or (not os.path.exists(folder) and os.path.isdir(named))):
        folder = named
    if not os.path.isfile(folder / RESULTS_FILE):
        check_finished(folder)
    return folder


def runs_in(folder: Path) -> list[Run]:
    """The runs whose folders lie in a folder, the one changed last first.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        fix = mend_unread(error, "check the path")
        raise UserError(f"--runs must be the folder of all runs: got {folder}: {reason_of(error)}; {fix}") from None
    runs = [run_at(path) for path in paths if not path.is_symlink()]
    return sorted((run for run in runs if run), key=lambda run: run.age)


def run_at(folder: Path) -> Run | None:
    """What is known of a run's folder without reading its results; None where it holds no run."""
    has_results = os.path.isfile(folder / RESULTS_FILE)
    unfinished = is_unfinished(folder)
    if not unfinished and not has_results:
        return None
    # A process that works on a run has a lock there; looking for one must not make it.
    in_use = os.path.exists(folder / LOCK_FILE) and is_locked(folder)
    size, changed = 0, 0.0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # Another process may be removing it.
            stat = path.lstat()
            if not path.is_dir():
                size, changed = size + stat.st_size, max(changed, stat.st_mtime)
    state = IN_USE if in_use else UNFINISHED if unfinished else FINISHED
    return Run(folder, state, size, max(time.time() - changed, 0.0), has_results)


def remove_unfinished(folder: Path) -> bool:
    """Remove what an abandoned run has made; what else lies in its folder stays.

    Returns:
        Whether it was removed: not where a process has begun to work on it, or where there are results.

    Raises:
        UserError: it cannot be removed.
    """
    with writing(folder):
        lock = lock_of(folder)
        try:
            lock.acquire()
        except Timeout:
            return False
        try:
            if not is_unfinished(folder) or (folder / RESULTS_FILE).exists():
                return False
            if (folder / UNFINISHED).is_dir():
                remove_tree(folder / REMOVED)
                move(folder / UNFINISHED, folder / REMOVED)
            remove_tree(folder / REMOVED)
            remove_record(folder)
            (folder / LOCK_FILE).unlink(missing_ok=True)
        finally:
            lock.release()
        with contextlib.suppress(OSError):  # It holds something else.
            folder.rmdir()
    return True

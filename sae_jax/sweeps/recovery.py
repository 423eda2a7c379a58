"""What a run needs to be resumed: the last states of its lanes in training, and its finished lanes."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.atomic import remove_tree, writing
from sae_jax.storage.checkpoints import (
    Arrays,
    BrokenCheckpoint,
    Position,
    read_arrays,
    read_position,
    write_checkpoint,
)
from sae_jax.sweeps.devices import from_leader
from sae_jax.sweeps.pace import ENDLESS, call_size
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.processes import gather, together

# So many states are kept: where the last one is damaged, the one before it is used.
STATES = 2

Expected = Mapping[str, jax.ShapeDtypeStruct]


class Interrupted(Exception):
    """Training has ended before its last step because it was asked to; what was trained is saved.

    Attributes:
        number: of the signal that asked, 0 where another process heard it.
        line: how to resume.
    """

    number: int = 0
    line: str = ""


class Recovery(NamedTuple):
    """The checkpoints of a run as its folder was found: the last state of lanes in training, and every finished chunk.

    Each is a folder that appears in one move, with a digest of every file. Every process of a run makes the same calls;
    those without a folder write nothing and receive what the first one reads. A sweep that is held in memory has none
    of this: it is trained without a Recovery.

    Attributes:
        folder: of this run alone; None on a process that only helps the first one.
        run: by what the run is known again.
        every: seconds between saves.
        asked_to_end: whether training is to end now.
        say: receives lines about checkpoints that are damaged.
        state: the last state that is what was saved, and where it lies; None where there is none.
        damaged: states after it that are not.
        writer: the thread in which checkpoints are written beside the training, one after another.
        unwritten: those whose end nobody has looked at yet, in order.
    """

    folder: Path | None
    run: str
    every: float
    asked_to_end: Callable[[], bool]
    say: Callable[[str], None]
    state: tuple[Path, Position] | None
    damaged: tuple[Path, ...]
    writer: ThreadPoolExecutor
    unwritten: deque[Future[None]]


@contextlib.contextmanager
def saving(
    folder: Path | None,
    run: str = "",
    every: float = 60.0,
    asked_to_end: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Recovery]:
    """What a folder holds, and a thread that writes into it; left once that is done. Arguments as in `Recovery`.

    Raises:
        UserError: there are states, and none of them is what was saved; or the folder cannot be written to.
    """
    state, damaged = None, list[Path]()
    if folder is not None:
        _make_folders(folder)
        state, damaged = _last_state(folder, run, say)
    # What is being written needs the interpreter until the end.
    with ThreadPoolExecutor(1) as writer:
        yield Recovery(folder, run, every, asked_to_end, say, state, tuple(damaged), writer, deque())


def _last_state(folder: Path, run: str, say: Callable[[str], None]) -> tuple[tuple[Path, Position] | None, list[Path]]:
    """The last state that is what was saved, and those after it that are not."""
    damaged, reasons = list[Path](), list[str]()
    for path in reversed(_states(folder)):
        try:
            state = path, read_position(path, run)
        except BrokenCheckpoint as error:
            damaged.append(path)
            reasons.append(f"{path}: {error}")
            continue
        for reason in reasons:
            say(f"warning: a checkpoint must be as it was saved: got {reason}; the one before it is used")
        return state, damaged
    if reasons:
        raise UserError(
            f"one of the last checkpoints must be as it was saved: got {'; '.join(reversed(reasons))}; put a copy "
            f"back, or remove {folder / 'states'} to train again from the last finished lanes"
        )
    return None, []


def summary(recovery: Recovery) -> str:
    """What a run is resumed from, in words."""
    finished = len(list(recovery.folder.glob("lanes/*"))) if recovery.folder else 0
    state = f", another at step {recovery.state[1].step:,}" if recovery.state else ""
    return f"{count(finished, 'finished chunk')}{state}"


def position_of(recovery: Recovery, program: int, first: int) -> Position | None:
    """Where the chunk of a program that begins with a lane stands, on every process; None where it has not begun."""
    values = gather("train", lambda: _position_here(recovery, program, first))[0]
    return Position(*values) if values else None


def _position_here(recovery: Recovery, program: int, first: int) -> Position | None:
    if recovery.folder is None:
        return None
    path = _lanes(recovery.folder, program, first)
    if os.path.lexists(path):
        try:
            position = read_position(path, recovery.run)
            if position[:2] != (program, first) or not position.finished:
                raise BrokenCheckpoint("it is one of other lanes")
            return position
        except BrokenCheckpoint as error:
            recovery.say(
                f"warning: finished lanes must be as they were saved: got {path}: {error}; they are trained again"
            )
    return recovery.state[1] if recovery.state and recovery.state[1][:2] == (program, first) else None


def read_state(recovery: Recovery, position: Position, expected: Expected) -> Arrays:
    """The arrays that `save_state` received at a position, on every process.

    Raises:
        UserError: they are not those expected.
    """

    def read() -> Arrays:
        assert recovery.state is not None and recovery.state[1] == position
        return read_arrays(recovery.state[0], expected)

    return from_leader("train", read, expected)


def read_finished(recovery: Recovery, position: Position, expected: Expected) -> Arrays | None:
    """What `save_finished` received at a position; None on a process that only helps.

    Raises:
        UserError: the arrays are not those expected.
    """

    def read() -> Arrays | None:
        path = recovery.folder and _lanes(recovery.folder, position.program, position.first)
        return read_arrays(path, expected) if path else None

    return together("train", read)


def next_call(
    recovery: Recovery | None, before: int, seconds_per_step: float | None, saved_at: float
) -> tuple[int, bool, bool, bool]:
    """What comes next in a training, as the first process decides; all end where one is asked to.

    Args:
        recovery: None trains to the end at once.
        before, seconds_per_step: as in `pace.call_size`.
        saved_at: when its lanes were saved last, or began, s.

    Returns:
        The most steps of the next call; whether it is made while the one before it still runs; whether lanes are saved,
        and the training ends, before it.

    Raises:
        UserError: something could not be written.
    """
    if recovery is None:
        return ENDLESS, True, False, False

    def decide() -> tuple[int, bool, bool, bool]:
        _check(recovery)
        # Not while a save before it is still being written.
        due = not recovery.unwritten and time.monotonic() - saved_at >= recovery.every
        return *call_size(before, seconds_per_step), due, recovery.asked_to_end()

    calls = gather("train", decide)
    size, ahead, save, _ = calls[0]
    return size, ahead, save, any(end for *_, end in calls)


def save_state(recovery: Recovery, position: Position, arrays: Arrays) -> None:
    """Write the state of a chunk in training, beside the training; the arrays are copied first."""
    if recovery.folder is not None:
        copies = {name: np.array(values) for name, values in arrays.items()}
        recovery.unwritten.append(recovery.writer.submit(_write_state, recovery, recovery.folder, position, copies))


def _write_state(recovery: Recovery, folder: Path, position: Position, arrays: Arrays) -> None:
    """Write a state after all others, and take away those that are no longer needed."""
    before = _states(folder)
    path = folder / "states" / f"{int(before[-1].name) + 1 if before else 0:09d}"
    write_checkpoint(path, recovery.run, position, arrays)
    good = [*(one for one in before if one not in recovery.damaged), path]
    with writing(path.parent):
        for old in [*recovery.damaged, *good[:-STATES]]:
            remove_tree(old, strict=True)


def save_finished(recovery: Recovery, position: Position, measured: Arrays) -> Arrays | None:
    """Write what was measured of a finished chunk, [lanes, ...] by variable name, beside the training.

    Returns:
        It; None on a process that only helps.

    Raises:
        UserError: something could not be written.
    """
    if recovery.folder is not None:
        path = _lanes(recovery.folder, position.program, position.first)
        recovery.unwritten.append(recovery.writer.submit(write_checkpoint, path, recovery.run, position, measured))
    together("train", lambda: _check(recovery))
    return measured if recovery.folder is not None else None


def _check(recovery: Recovery) -> None:
    """Forget about what has been written; raise the error of what could not be."""
    while recovery.unwritten and recovery.unwritten[0].done():
        recovery.unwritten.popleft().result()


def wait(recovery: Recovery) -> None:
    """Wait until everything is written.

    Raises:
        UserError: something could not be.
    """
    while recovery.unwritten:
        recovery.unwritten.popleft().result()


def _make_folders(folder: Path) -> None:
    """Make the folders, and take away what was being written when a process before was killed."""
    for path in (folder.parent, folder, folder / "states", folder / "lanes"):
        if path.is_symlink():
            raise UserError(f"checkpoints must lie in the run's own folder: got {path}, a link; remove it")
    with writing(folder):
        for kind in ("states", "lanes"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for place in (folder / "states", folder / "lanes"):
            for name in os.listdir(place):  # Path.glob passes over a folder that is closed to this user.
                if name.endswith(".partial"):
                    remove_tree(place / name, strict=True)


def _states(folder: Path) -> list[Path]:
    """The states that there are, in the order in which they were saved."""
    return sorted(path for path in folder.glob("states/*") if re.fullmatch("[0-9]{9,18}", path.name))


def _lanes(folder: Path, program: int, first: int) -> Path:
    """Where the finished chunk of a program that begins with a lane is kept."""
    return folder / "lanes" / f"{program:03d}-{first:09d}"

"""What a run needs to be resumed: the last states of its lanes in training, and its finished lanes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.atomic import writing
from sae_jax.storage.checkpoints import (
    Arrays,
    BrokenCheckpoint,
    Position,
    read_arrays,
    read_position,
    remove_checkpoint,
    write_checkpoint,
)
from sae_jax.sweeps.devices import from_leader
from sae_jax.sweeps.pace import NextCall, next_call
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


class Recovery:
    """The checkpoints of a run, in its folder: the last states, and every finished chunk.

    Each is a folder that appears in one move, with a digest of every file. They are written beside the training. Every
    process of a run makes the same calls; those without a folder write nothing and receive what the first one reads.
    A sweep that is held in memory has none of this: it is trained without a Recovery.
    """

    def __init__(
        self,
        folder: Path | None,
        run: str = "",
        every: float = 60.0,
        asked_to_end: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Look at what a folder holds.

        Args:
            folder: of this run alone; None on a process that only helps the first one.
            run: by what the run is known again.
            every: seconds between saves.
            asked_to_end: whether training is to end now.
            say: receives lines about checkpoints that are damaged.

        Raises:
            UserError: there are states, and none of them is what was saved; or the folder cannot be written to.
        """
        self.folder, self.run, self.every, self.asked_to_end, self.say = folder, run, every, asked_to_end, say
        self.state: tuple[Path, Position] | None = None
        self._damaged: list[Path] = []
        self._writer = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []
        self._last_save = time.monotonic()
        if folder is not None:
            _make_folders(folder)
            self._read_last_state(folder)

    def _read_last_state(self, folder: Path) -> None:
        states, reasons = _states(folder), []
        self._number = int(states[-1].name) + 1 if states else 0
        for path in reversed(states):
            try:
                self.state = path, read_position(path, self.run)
                break
            except BrokenCheckpoint as error:
                self._damaged.append(path)
                reasons.append(f"{path}: {error}")
        for reason in reasons if self.state else []:
            self.say(f"warning: a checkpoint must be as it was saved: got {reason}; the one before it is used")
        if reasons and not self.state:
            raise UserError(
                f"one of the last checkpoints must be as it was saved: got {'; '.join(reversed(reasons))}; put a copy "
                f"back, or remove {folder / 'states'} to train again from the last finished lanes"
            )

    def __enter__(self) -> Recovery:
        return self

    def __exit__(self, *_: object) -> None:
        # What is being written needs the interpreter until the end.
        self._writer.shutdown()

    def summary(self) -> str:
        """What a run is resumed from, in words."""
        finished = len(list(self.folder.glob("lanes/*"))) if self.folder else 0
        state = f", another at step {self.state[1].step:,}" if self.state else ""
        return f"{count(finished, 'finished chunk')}{state}"

    def position(self, program: int, first: int) -> Position | None:
        """Where the chunk of a program that begins with a lane stands; None where it has not begun."""
        values = gather("train", lambda: self._position(program, first))[0]
        return Position(*values) if values else None

    def _position(self, program: int, first: int) -> Position | None:
        if self.folder is None:
            return None
        path = _lanes(self.folder, program, first)
        if os.path.lexists(path):
            try:
                position = read_position(path, self.run)
                if position[:2] != (program, first) or not position.finished:
                    raise BrokenCheckpoint("it is one of other lanes")
                return position
            except BrokenCheckpoint as error:
                self.say(
                    f"warning: finished lanes must be as they were saved: got {path}: {error}; they are trained again"
                )
        return self.state[1] if self.state and self.state[1][:2] == (program, first) else None

    def read(self, position: Position, expected: Expected) -> Arrays:
        """The arrays that `save` received at a position, on every process.

        Raises:
            UserError: they are not those expected.
        """

        def read() -> Arrays:
            assert self.state is not None and self.state[1] == position
            return read_arrays(self.state[0], expected)

        return from_leader("train", read, expected)

    def read_measured(self, position: Position, expected: Expected) -> Arrays | None:
        """What `finish` received at a position; None on a process that only helps.

        Raises:
            UserError: the arrays are not those expected.
        """

        def read() -> Arrays | None:
            path = self.folder and _lanes(self.folder, position.program, position.first)
            return read_arrays(path, expected) if path else None

        return together("train", read)

    def next_call(self, before: NextCall, seconds_per_step: float | None) -> NextCall:
        """What comes next, as the first process decides; all end where one is asked to. Arguments as in `pace`.

        Raises:
            UserError: something could not be written.
        """

        def decide() -> NextCall:
            self._check()
            return next_call(before, seconds_per_step, self._is_due(), self.asked_to_end())

        calls = [NextCall(*values) for values in gather("train", decide)]
        return calls[0]._replace(end=any(call.end for call in calls))

    def _is_due(self) -> bool:
        """Whether it is time to save: not while a save before it is still being written."""
        return all(one.done() for one in self._writing) and time.monotonic() - self._last_save >= self.every

    def save(self, position: Position, arrays: Arrays) -> None:
        """Write the state of a chunk in training, beside the training; the arrays are copied first."""
        if self.folder is not None:
            path = self.folder / "states" / f"{self._number:09d}"
            self._number, self._last_save = self._number + 1, time.monotonic()
            copies = {name: np.array(values) for name, values in arrays.items()}
            self._writing.append(self._writer.submit(self._write_state, path, position, copies))

    def _write_state(self, path: Path, position: Position, arrays: Arrays) -> None:
        write_checkpoint(path, self.run, position, arrays)
        good = [one for one in _states(path.parent.parent) if one not in self._damaged]
        with writing(path.parent):
            for old in [*self._damaged, *good[:-STATES]]:
                remove_checkpoint(old)
        self._damaged = []

    def finish(self, position: Position, measured: Arrays) -> Arrays | None:
        """Write what was measured of a finished chunk, [lanes, ...] by variable name, beside the training.

        Returns:
            It; None on a process that only helps.

        Raises:
            UserError: something could not be written.
        """
        if self.folder is not None:
            path = _lanes(self.folder, position.program, position.first)
            self._writing.append(self._writer.submit(write_checkpoint, path, self.run, position, measured))
        together("train", self._check)
        return measured if self.folder is not None else None

    def _check(self) -> None:
        """Forget about what has been written; raise the error of what could not be."""
        done = [one for one in self._writing if one.done()]
        self._writing = [one for one in self._writing if not one.done()]
        for one in done:
            one.result()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            UserError: something could not be.
        """
        for one in self._writing:
            one.result()
        self._writing = []


def _make_folders(folder: Path) -> None:
    """Make the folders, and take away what was being written when a process before was killed."""
    for path in (folder.parent, folder, folder / "states", folder / "lanes"):
        if path.is_symlink():
            raise UserError(f"checkpoints must lie in the run's own folder: got {path}, a link; remove it")
    with writing(folder):
        for kind in ("states", "lanes"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*/*.partial"):
            remove_checkpoint(partial)


def _states(folder: Path) -> list[Path]:
    """The states that there are, in the order in which they were saved."""
    return sorted(path for path in folder.glob("states/*") if re.fullmatch("[0-9]{9,18}", path.name))


def _lanes(folder: Path, program: int, first: int) -> Path:
    """Where the finished chunk of a program that begins with a lane is kept."""
    return folder / "lanes" / f"{program:03d}-{first:09d}"

"""What becomes of lanes while they are trained and when they have been: held in memory, or kept in a run's folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.devices import from_leader
from sae_jax.sweeps.plan import count

KEPT = 2
# A run is asked to end at any moment; so long it may compute before it looks up. Every time it does, lanes are copied,
# which takes large ones a seventh of a step's time.
CALL_SECONDS = 3.0
# What is shorter would leave the devices waiting for the host.
SHORT_SECONDS = 0.3
GROWTH = 4
ENDLESS = 2**30

Expected = Mapping[str, jax.ShapeDtypeStruct]


class Interrupted(Exception):
    """Training has ended before its last step because it was asked to; what was trained is saved.

    Attributes:
        number: of the signal that asked, 0 where another process heard it.
        line: how to go on.
    """

    number: int = 0
    line: str = ""


class Wish(NamedTuple):
    """What is to happen next: a save, the end, or else at most so many steps until the next question.

    Attributes:
        steps: of the next call.
        ahead: whether it is to be made while the one before it still runs.
        save, end: whether to save and to end first.
    """

    steps: int = ENDLESS
    ahead: bool = True
    save: bool = False
    end: bool = False


class Keeper:
    """Keeps the finished lanes of one program until they are handed on; nothing of unfinished ones."""

    def __init__(self) -> None:
        self._found: dict[int, Arrays] = {}

    def at(self, first: int) -> Position | None:
        """Where the chunk that begins with a lane stood when this training began; None where it had not begun."""
        return None

    def read(self, position: Position, expected: Expected) -> Arrays:
        """The arrays that `save` was given; those expected, or an error."""
        raise LookupError(f"nothing is kept of lanes in training: got {position}")

    def consult(self, seconds: float | None) -> Wish:
        """What to do next; `seconds` is how long a step takes, None where that is not known yet."""
        return Wish()

    def save(self, position: Position, arrays: Arrays) -> None:
        """Keep the state of a chunk in training; the arrays may be written to once it returns."""

    def finish(self, position: Position, found: Arrays) -> None:
        """Keep what was found of a finished chunk, [lanes, ...] by variable name."""
        self._found[position.first] = found

    def found(self, first: int, expected: Callable[[], Expected]) -> Arrays | None:
        """What `finish` was given for the chunk that begins with a lane, once; None on a process that only helps."""
        return self._found.pop(first)


class Checkpoints:
    """The checkpoints of a run, in its folder: the last two states, and every finished chunk.

    Each is a folder that appears in one move, with a digest of every file. They are written beside the training.
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
            folder: of this run alone; None on a process that only helps another, which keeps everything.
            run: by what the run is known again.
            every: seconds between saves.
            asked_to_end: whether training is to end now.
            say: takes lines about checkpoints that are broken.

        Raises:
            UserError: there are states, and none of them is what was saved; or the folder cannot be written to.
        """
        self.folder, self.run, self.every, self.asked_to_end, self.say = folder, run, every, asked_to_end, say
        self.state: tuple[Path, Position] | None = None
        self._broken: list[Path] = []
        self._writer = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []
        self._last_save = time.monotonic()
        if folder is not None:
            self._make_room(folder)
            self._look_for_a_state(folder)

    def _make_room(self, folder: Path) -> None:
        """Make the folders, and take away what was being written when a process before was killed."""
        for path in (folder.parent, folder, folder / "states", folder / "lanes"):
            if path.is_symlink():
                raise UserError(f"checkpoints must lie in the run's own folder: got {path}, a link; remove it")
        with writing(folder):
            for kind in ("states", "lanes"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            for partial in folder.glob("*/*.partial"):
                remove_checkpoint(partial)

    def _look_for_a_state(self, folder: Path) -> None:
        states, reasons = self._states(), []
        self._number = int(states[-1].name) + 1 if states else 0
        for path in reversed(states):
            try:
                self.state = path, read_position(path, self.run)
                break
            except BrokenCheckpoint as error:
                self._broken.append(path)
                reasons.append(f"{path}: {error}")
        for reason in reasons if self.state else []:
            self.say(f"warning: a checkpoint must be as it was saved: got {reason}; the one before it is used")
        if reasons and not self.state:
            raise UserError(
                f"one of the last checkpoints must be as it was saved: got {'; '.join(reversed(reasons))}; put a copy "
                f"back, or remove {folder / 'states'} to train again from the last finished lanes"
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        # What is being written needs the interpreter until the end.
        self._writer.shutdown()

    def of_program(self, number: int) -> ProgramCheckpoints:
        """The keeper of a program's lanes."""
        return ProgramCheckpoints(self, number)

    @property
    def standing(self) -> str:
        """What there is to go on from, in words."""
        finished = len(list(self.folder.glob("lanes/*"))) if self.folder else 0
        state = f", another at step {self.state[1].step:,}" if self.state else ""
        return f"{count(finished, 'finished chunk')}{state}"

    def due(self) -> bool:
        """Whether it is time to save: not while a save before it is still being written."""
        return all(one.done() for one in self._writing) and time.monotonic() - self._last_save >= self.every

    def write_state(self, position: Position, arrays: Arrays) -> None:
        """Write a copy of the state of a chunk in training, beside the training."""
        if self.folder is not None:
            path = self.folder / "states" / f"{self._number:09d}"
            self._number, self._last_save = self._number + 1, time.monotonic()
            copies = {name: np.array(values) for name, values in arrays.items()}
            self._writing.append(self._writer.submit(self._write_state, path, position, copies))

    def write_lanes(self, path: Path, position: Position, found: Arrays) -> None:
        """Write what was found of finished lanes, beside the training."""
        self._writing.append(self._writer.submit(write_checkpoint, path, self.run, position, found))

    def check(self) -> None:
        """Forget about what has been written.

        Raises:
            UserError: something could not be.
        """
        done = [one for one in self._writing if one.done()]
        self._writing = [one for one in self._writing if not one.done()]
        for one in done:
            one.result()

    def wait(self) -> None:
        """Wait until everything is written; errors are those of `check`."""
        for one in self._writing:
            one.result()
        self._writing = []

    def _write_state(self, path: Path, position: Position, arrays: Arrays) -> None:
        write_checkpoint(path, self.run, position, arrays)
        good = [one for one in self._states() if one not in self._broken]
        with writing(path.parent):
            for old in [*self._broken, *good[:-KEPT]]:
                remove_checkpoint(old)
        self._broken = []

    def _states(self) -> list[Path]:
        """The states that there are, in the order in which they were saved."""
        found = self.folder.glob("states/*") if self.folder else ()
        return sorted(path for path in found if re.fullmatch("[0-9]{9,18}", path.name))


class ProgramCheckpoints(Keeper):
    """Keeps the lanes of one program in a run's checkpoints; every process of the run must make the same calls."""

    def __init__(self, checkpoints: Checkpoints, number: int) -> None:
        super().__init__()
        self._all, self._number, self._steps = checkpoints, number, 1
        self._path: Path | None = None

    def at(self, first: int) -> Position | None:
        words = distributed.told(json.dumps(self._look(first)))
        return Position(*json.loads(words)) if words != "null" else None

    def _look(self, first: int) -> Position | None:
        if self._all.folder is None:
            return None
        self._path = self._lanes(first)
        if os.path.lexists(self._path):
            try:
                position = read_position(self._path, self._all.run)
                if position[:2] != (self._number, first) or not position.finished:
                    raise BrokenCheckpoint("it is one of other lanes")
                return position
            except BrokenCheckpoint as error:
                self._all.say(
                    f"warning: finished lanes must be as they were saved: got {self._path}: {error}; "
                    "they are trained again"
                )
        if self._all.state and self._all.state[1][:2] == (self._number, first):
            self._path = self._all.state[0]
            return self._all.state[1]
        return None

    def read(self, position: Position, expected: Expected) -> Arrays:
        def ours() -> Arrays:
            assert self._path is not None
            return read_arrays(self._path, expected)

        return from_leader(ours, expected)

    def consult(self, seconds: float | None) -> Wish:
        if seconds is not None:
            self._steps = int(np.clip(CALL_SECONDS / max(seconds, 1e-9), 1, min(GROWTH * self._steps, ENDLESS)))
        distributed.together(self._all.check)
        ahead = seconds is None or seconds * self._steps < SHORT_SECONDS
        wish = Wish(self._steps, ahead, self._all.due(), self._all.asked_to_end())
        said = [Wish(*json.loads(words)) for words in distributed.exchange(json.dumps(wish))]
        return said[0]._replace(end=any(one.end for one in said))

    def save(self, position: Position, arrays: Arrays) -> None:
        self._all.write_state(position._replace(program=self._number), arrays)

    def finish(self, position: Position, found: Arrays) -> None:
        if self._all.folder is not None:
            super().finish(position, found)
            self._all.write_lanes(self._lanes(position.first), position._replace(program=self._number), found)

    def found(self, first: int, expected: Callable[[], Expected]) -> Arrays | None:
        def ours() -> Arrays | None:
            self._all.check()
            if self._all.folder is None or first in self._found:
                return self._found.pop(first, None)
            return read_arrays(self._lanes(first), expected())

        return distributed.together(ours)

    def _lanes(self, first: int) -> Path:
        return (self._all.folder or Path()) / "lanes" / f"{self._number:03d}-{first:09d}"

"""Commands whose every change to a file fails once in each way, or is the last thing that their process does."""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults.system_calls import Call, run
from tests.processes import ROOT, Forked, environment

FAULTS: dict[str, int | str] = {
    "no space": errno.ENOSPC,
    "input/output error": errno.EIO,
    "no permission": errno.EACCES,
    "kill": "kill",
}
OUTCOMES = ("carried on", "one line", "killed", "not made", "wrong")
TRAINING = [
    *("--dataset", "digits", "--samples", "200", "--d-hidden", "4", "--batch-size", "32", "--rho", ".05", ".1"),
    *("--devices", "2", "--seeds", "2", "--steps", "40", "--figures", "False", "--report", "False"),
]
# Two chunks, and a state of the one in training whenever one may be written.
SWEEP = ["experiments.sweep", *TRAINING, "--lanes-per-chunk", "2", "--checkpoint-every", "0", "--name", "run"]
OTHER = ["experiments.sweep", *TRAINING, "--beta", "1", "--name", "other"]
# Changes from run to run, and says nothing about what was trained.
VOLATILE = {"log.txt", "provenance.json"}
FINISHED = re.compile("which is finished|which holds a finished run|an empty folder: got .*, which holds something")
REMOVALS = ("unlink", "unlinkat", "rmdir")
LITTER = re.compile(r"\.partial|\.removed|\.lock|unfinished|orbax")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, and what stands in its folder before: the commands that wrote it, the last of them killed at a call.

    Args:
        name: in the table.
        words: a module and its arguments; repeated, they end what they had begun.
        before: commands that come first.
        killed_at: where the last of those is killed: name of the call, and its place among those of that name.
    """

    name: str
    words: Sequence[str]
    before: Sequence[Sequence[str]] = ()
    killed_at: tuple[str, int] | None = None


COMMANDS = (
    Command("sweep", [*SWEEP, "--keep-state"]),
    Command("sweep --resume", ["experiments.sweep", "--resume", "run"], [SWEEP], ("fsync", 60)),
    Command("sweep --extend", ["experiments.sweep", "--extend", "run", "--seeds", "3", "--name", "more"], [SWEEP]),
    Command("evaluate", ["experiments.evaluate", "run", "--task", "denoising", "--noise", ".1"], [SWEEP]),
    Command("draw", ["experiments.draw", "run", "--figure", "curves", "filters", "--format", "svg"], [SWEEP]),
    Command("table", ["experiments.table", "run", "--out", "table.md"], [SWEEP]),
    Command("encode", ["experiments.encode", "run", "--out", "codes.npz"], [SWEEP]),
    Command("export", ["experiments.export", "run", "--to", "torch", "--all", "--out", "exported"], [SWEEP]),
    Command("units", ["experiments.units", "run", "--top", "4"], [SWEEP]),
    Command("report", ["experiments.report", "run"], [SWEEP]),
    Command("merge", ["experiments.merge", "runs/run", "runs/other", "--name", "both"], [SWEEP, OTHER]),
)


@dataclasses.dataclass(frozen=True)
class Moment:
    """One call of a command: its name, the path but for what differs between runs, and which of these it is, from 1."""

    name: str
    path: str
    number: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a fault: one of OUTCOMES, and of a wrong one, why."""

    command: str
    moment: Moment
    fault: str
    outcome: str
    why: str = ""


class Bench:
    """A command's folder as it is before it, and what it leaves there undisturbed.

    Args:
        command: the command.
        place: an empty folder.
    """

    def __init__(self, command: Command, place: Path) -> None:
        self.command, self.place = command, place
        self.run = functools.partial(run, root=ROOT, environment=environment(), popen=Forked)
        self.before = place / "before"
        self.before.mkdir()
        for words in command.before:
            last = words is command.before[-1] and command.killed_at
            self._done(self.before, words, _KillAt(*command.killed_at) if last else lambda call: 0, bool(last))
        with self._copy() as folder:
            counter = _Counter(folder)
            self._done(folder, command.words, counter)
            self.moments = counter.moments
            self.expected = contents(folder)

    def result(self, moment: Moment, fault: str) -> Result:
        """What comes of a fault at a moment, and of the same command after it."""
        with self._copy() as folder:
            at = _Fault(folder, moment, FAULTS[fault])
            code, _, err = self.run(self.command.words, folder, at)
            outcome, why = self._judged(folder, code, err, at)
            if not why and outcome in ("one line", "killed"):
                code, _, err = self.run(self.command.words, folder, lambda call: 0)
                # Where all files were written, it is refused, and takes away what was left beside them.
                failed = code and not (code == 2 and FINISHED.search(err) and err.count("\n") == 1)
                why = f"repeated, it ended with {code}: {err}" if failed else self._difference(folder)
            return Result(self.command.name, moment, fault, "wrong" if why else outcome, why)

    def _judged(self, folder: Path, code: int, err: str, at: _Fault) -> tuple[str, str]:
        if not at.met:  # How often a state is saved depends on the time.
            return "not made", ""
        if code == -9:
            return "killed", ""
        if code == 0:  # What could not be removed stays, until the next command comes.
            return "carried on", self._difference(folder, at.moment.name in REMOVALS)
        if code == 2 and err.startswith("error: ") and err.count("\n") == 1:
            return "one line", ""
        return "", f"it ended with {code}: {err}"

    def _difference(self, folder: Path, litter: bool = False) -> str:
        found = contents(folder)
        wrong = sorted(name for name in found.keys() | self.expected if found.get(name) != self.expected.get(name))
        wrong = [name for name in wrong if not (litter and LITTER.search(name))]
        return f"files differ from those of an undisturbed run: {', '.join(wrong)}" if wrong else ""

    def _copy(self) -> Any:
        return _Copy(self.before, self.place)

    def _done(self, folder: Path, words: Sequence[str], at: Any, killed: bool = False) -> None:
        code, out, err = self.run(words, folder, at)
        if code != (-9 if killed else 0):
            raise RuntimeError(f"{' '.join(words)} ended with {code} before any fault: {out}{err}")


class _Copy:
    def __init__(self, before: Path, place: Path) -> None:
        self.before, self.place = before, place

    def __enter__(self) -> Path:
        self.folder = Path(tempfile.mkdtemp(dir=self.place))
        shutil.copytree(self.before, self.folder, dirs_exist_ok=True)
        return self.folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files in a folder that the same command always writes alike, and of all that is litter."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in VOLATILE
    } | {str(path.relative_to(folder)): b"" for path in folder.rglob("*") if path.is_dir() and LITTER.search(path.name)}


def one_of_each(moments: Sequence[Moment]) -> Iterator[Moment]:
    """The first call of every kind to every file."""
    return (moment for moment in moments if moment.number == 1)


class _Counter:
    """Lets every call be done, and keeps which they were."""

    def __init__(self, folder: Path) -> None:
        self.start = len(os.path.realpath(folder)) + 1
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.moments: list[Moment] = []

    def __call__(self, call: Call) -> int | str:
        # Names that orbax draws anew, numbers of checkpoints, which depend on the time, and the arrays one by one.
        path = re.sub(r"[0-9a-f]{32}|\d+|(?<=/arrays/)[^/]*\.npy$", "*", call.path[self.start :])
        self.counts[call.name, path] += 1
        self.moments.append(Moment(call.name, path, self.counts[call.name, path]))
        return 0


class _Fault(_Counter):
    """Has one call fail."""

    def __init__(self, folder: Path, moment: Moment, answer: int | str) -> None:
        super().__init__(folder)
        self.moment, self.answer, self.met = moment, answer, False

    def __call__(self, call: Call) -> int | str:
        super().__call__(call)
        if self.met or self.moments[-1] != self.moment:
            return 0
        self.met = True
        return self.answer


class _KillAt:
    """Kills the process at the how-manieth call of a name."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.left = name, number

    def __call__(self, call: Call) -> int | str:
        self.left -= call.name == self.name
        return 0 if self.left else "kill"

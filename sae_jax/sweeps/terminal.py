"""What a sweep shows while it trains: its lines, and how its lanes stand; on a terminal, in a notebook, in a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.progress import BarColumn, ProgressColumn, Task
from rich.progress import Progress as Bar
from rich.text import Text

from sae_jax.settings import check_type
from sae_jax.sweeps.consoles import plain_console
from sae_jax.sweeps.observers import Observer, Points, Progress
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.streams import is_terminal, unfailing

LINE_SECONDS, REFRESH_SECONDS = 60.0, 0.5
# Narrower terminals have no room for a bar beside the numbers.
BAR_COLUMNS = 110


class Status(Observer):
    """How the lanes stand that are in training: medians over those whose values came last.

    Attributes:
        progress_made: the last progress; None before the first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.progress_made: Progress | None = None
        self._began: tuple[float, int] | None = None
        self._medians: dict[str, float] = {}

    def progress(self, progress: Progress) -> None:
        """Note where a program stands; compiling is no part of its rate."""
        if progress.phase == "compiling":
            self._began, self._medians = None, {}
        elif self._began is None:
            self._began = self.clock(), progress.step
        self.progress_made = progress

    def points(self, points: Points) -> None:
        """Note the loss."""
        self._note({"loss": points.values["loss"]})

    def measures(self, points: Points) -> None:
        """Note what was measured."""
        self._note({name: points.values[name] for name in ("explained_variance", "dead_fraction")})

    def _note(self, values: dict[str, np.ndarray]) -> None:
        for name, lanes in values.items():
            finite = lanes[np.isfinite(lanes)]
            if finite.size:
                self._medians[name] = float(np.median(finite))

    def time_left(self) -> str:
        """Time that the program's other steps take at the rate so far, as h:mm:ss."""
        made = self.progress_made
        if made is None or self._began is None or made.step <= self._began[1]:
            return "-:--:--"
        began, first = self._began
        left = int((self.clock() - began) / (made.step - first) * (made.steps - made.step))
        return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"

    def numbers(self) -> str:
        """The medians over lanes, and the time left."""
        shown = {
            "loss": lambda value: f"loss {value:.4g}",
            "explained_variance": lambda value: f"explained variance {value:.3f}",
            "dead_fraction": lambda value: f"dead {value:.0%}",
        }
        medians = [words(self._medians[name]) for name, words in shown.items() if name in self._medians]
        return ", ".join([*medians, f"{self.time_left()} left"])

    def steps(self) -> str:
        """The phase and the steps taken, and of which program where there are several."""
        made = self.progress_made
        if made is None:
            return ""
        program = f" program {made.program + 1} of {made.programs}" if made.programs > 1 else ""
        return f"{made.phase}{program} {made.step}/{made.steps}"


class Terminal(Observer):
    """Shows a sweep on a terminal; where the output is none, as a line at each quarter, and each minute between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = plain_console(unfailing(sys.stdout))
        self._status = Status(clock)
        bar = [BarColumn(bar_width=20)] if self.console.width >= BAR_COLUMNS else []
        columns = [_Words(self._status.steps), *bar, _Words(self._status.numbers)]
        self._bar = Bar(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task("", total=None, visible=False)
        self._last_line: tuple[float, int] = (clock(), -1)

    def __enter__(self) -> Terminal:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False)

    def points(self, points: Points) -> None:
        """Note the loss."""
        self._status.points(points)

    def measures(self, points: Points) -> None:
        """Note what was measured."""
        self._status.measures(points)

    def progress(self, progress: Progress) -> None:
        """Show where a program stands."""
        self._status.progress(progress)
        if not self.console.is_terminal:
            self._print(progress)
            return
        self._bar.update(self._task, completed=progress.step, total=progress.steps, visible=True)

    def _print(self, progress: Progress) -> None:
        """Print a line where one is due."""
        now, compiling = self._status.clock(), progress.phase == "compiling"
        printed_at, quarter_then = self._last_line
        quarter = -1 if compiling else 4 * progress.step // max(progress.steps, 1)
        if not compiling and quarter == quarter_then and now - printed_at < LINE_SECONDS:
            return
        self._last_line = now, quarter
        at = f"{progress.steps} steps" if compiling else f"step {progress.step} of {progress.steps}"
        program = f", program {progress.program + 1} of {progress.programs}" if progress.programs > 1 else ""
        numbers = f"; {self._status.numbers()}" if progress.phase == "training" else ""
        self.line(f"{progress.phase}: {at}, {count(progress.lanes, 'lane')}{program}{numbers}")


class _Words(ProgressColumn):
    """A column of a progress bar: what a function says."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        """The words, in one line."""
        return Text(self._words(), no_wrap=True)


class Notebook(Observer):
    """Shows a sweep in a notebook: its lines, and one that is written over again and again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from IPython.display import display

        self._status, self._refreshed_at = Status(clock), -np.inf
        self._line = display({"text/plain": ""}, raw=True, display_id=True)

    def line(self, text: str) -> None:
        """Print one line."""
        print(text)

    def points(self, points: Points) -> None:
        """Note the loss."""
        self._status.points(points)

    def measures(self, points: Points) -> None:
        """Note what was measured."""
        self._status.measures(points)

    def progress(self, progress: Progress) -> None:
        """Write the line over, at most so many times a second, and at each change of phase."""
        before, now = self._status.progress_made, self._status.clock()
        self._status.progress(progress)
        if before is None or before.phase != progress.phase or now - self._refreshed_at >= REFRESH_SECONDS:
            self._refreshed_at = now
            self._show(f"{self._status.steps()}, {self._status.numbers()}")

    def close(self) -> None:
        """Leave nothing of the line."""
        self._show("")

    def _show(self, text: str) -> None:
        self._line.update({"text/plain": text}, raw=True)


@contextlib.contextmanager
def shown(progress: bool | None) -> Iterator[Observer | None]:
    """Whoever shows a sweep that Python code has called.

    Args:
        progress: whether to show it; None does at a terminal and in a notebook.

    Returns:
        An observer; None where nothing is shown.

    Raises:
        UserError: `progress` is something else.
    """
    check_type("progress", progress, (bool, type(None)), "True, False or None", "leave it out")
    if progress is False:
        yield None
    elif plain_console().is_jupyter:
        yield Notebook()
    elif progress or is_terminal(sys.stdout):
        with Terminal() as terminal:
            yield terminal
    else:
        yield None

"""What a run shows on the terminal while it trains: the plan, a progress bar, lines."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from sae_jax.sweeps import observers
from sae_jax.sweeps.plan import count


class TimeLeft(ProgressColumn):
    """Time left by the rate since training began; compiling is not part of the rate."""

    def render(self, task: Task) -> Text:
        if task.fields["began"] is None or not task.total:
            return Text("time left -:--")
        began, first = task.fields["began"]
        if task.completed <= first:
            return Text("time left -:--")
        left = int((time.monotonic() - began) / (task.completed - first) * (task.total - task.completed))
        return Text(f"time left {left // 60}:{left % 60:02d}")


class Terminal(observers.Observer):
    """Shows a sweep on the terminal; where there is none, as a line at each quarter."""

    def __init__(self) -> None:
        # Wide enough for the table where the output is a file, which has no width of its own.
        self.console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("steps, {task.fields[lanes]},"),
            TimeLeft(),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last = -1

    def __enter__(self) -> Terminal:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Print one line, unless nobody is there to read it any longer: that must not end a training."""
        with contextlib.suppress(OSError):
            self.console.print(text, highlight=False, markup=False)

    def progress(self, progress: observers.Progress) -> None:
        """Show where a program stands."""
        with contextlib.suppress(OSError):
            self._progress(progress)

    def _progress(self, progress: observers.Progress) -> None:
        if not self.console.is_terminal:
            quarter = -1 if progress.phase == "compiling" else 4 * progress.step // progress.steps
            if quarter != self._last or progress.phase == "compiling":
                self._last = quarter
                at = f"{progress.steps} steps" if quarter < 0 else f"step {progress.step} of {progress.steps}"
                self.line(f"{progress.phase}: {at}, {count(progress.lanes, 'lane')}")
            return
        if progress.phase == "compiling":
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task("", total=progress.steps, lanes=count(progress.lanes, "lane"), began=None)
        assert self._task is not None
        task = self._bar.tasks[-1]
        began = task.fields["began"] or ((time.monotonic(), progress.step) if progress.step else None)
        self._bar.update(self._task, description=progress.phase, completed=progress.step, began=began)

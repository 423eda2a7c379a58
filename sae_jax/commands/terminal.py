"""What a run shows on the terminal: the plan, a progress bar, the table of cells, where the files lie."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from sae_jax.analysis.cells import by_cell, cell_axes, cell_count, in_double_precision, short, target
from sae_jax.sweeps import observers
from sae_jax.sweeps.plan import count

MOST_ROWS = 40
# A unit is stuck at 0 when its mean activation is below this share of rho, and stuck at 1 by the mirror image of that.
STUCK = 0.1
# A lane that explains less variance than this has learned next to nothing.
LEARNED = 0.05
# Held-out measures in the table, with title and digits; those of units as their mean.
COLUMNS = {
    "eval_reconstruction": ("reconstruction error", 3),
    "eval_explained_variance": ("explained variance", 3),
    "eval_mean_activation": ("mean activation", 4),
    "eval_dead_fraction": ("dead fraction", 2),
}


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


def print_table(console: Console, dataset: xr.Dataset) -> None:
    """Print a row for every cell: its settings and its held-out measures, mean +- standard deviation over seeds."""
    total = cell_count(dataset)
    measures = {name: column for name, column in COLUMNS.items() if name in dataset}
    cells = by_cell(dataset[[*measures, "diverged_at"]], chosen=range(min(total, MOST_ROWS)))
    axes = cell_axes(dataset)
    if "rho" not in axes:
        axes, cells = ["rho", *axes], [({"rho": target(dataset).item(), **point}, cell) for point, cell in cells]
    table = Table(title=f"held-out data{over_seeds(dataset)}", title_justify="left")
    for name in axes:
        table.add_column(name, justify="right")
    for title, _ in measures.values():
        table.add_column(title, justify="right")
    diverged = dataset["diverged_at"] >= 0
    if bool(diverged.any()):
        table.add_column("diverged", justify="right", style="red")
    for point, single in cells:
        cell = in_double_precision(single)
        row = [short(value) for value in point.values()]
        for name, (_, digits) in measures.items():
            row.append(spread(cell[name].mean([dim for dim in cell[name].dims if dim != "seed"]).values, digits))
        if bool(diverged.any()):
            row.append(f"{int((cell['diverged_at'] >= 0).sum())} of {cell.sizes['seed']}")
        table.add_row(*row)
    console.print(table)
    if total > MOST_ROWS:
        console.print(f"{total - MOST_ROWS} more cells are in the results file")


def warnings_of(dataset: xr.Dataset) -> list[str]:
    """Lines about lanes that went wrong: those that diverged, and those whose units are mostly stuck at 0 or 1."""
    lines = []
    diverged = int((dataset["diverged_at"] >= 0).sum())
    total = dataset["diverged_at"].size
    if diverged:
        lines.append(
            f"warning: {diverged} of {total} lanes turned non-finite and were frozen with their last finite "
            "parameters; try a lower learning_rate, or clip_norm 1"
        )
    nothing = int((dataset["eval_explained_variance"] < LEARNED).sum()) if "eval_explained_variance" in dataset else 0
    if nothing:
        lines.append(
            f"warning: {nothing} of {total} lanes explain less than {LEARNED:.0%} of the held-out variance, next to "
            "nothing; try more steps, a larger rho, or a lower beta or weight_decay"
        )
    if "eval_mean_activation" not in dataset or "eval_max_activation" not in dataset:
        return lines
    rho = target(dataset)
    mean = dataset["eval_mean_activation"]
    bounded = dataset["eval_max_activation"].max("unit") <= 1
    units = mean.notnull().sum("unit")
    low = (mean < STUCK * rho).sum("unit")
    high = ((1 - mean < STUCK * (1 - rho)) & bounded).sum("unit")
    stuck = int((low + high > units / 2).sum())
    if stuck:
        lines.append(
            f"warning: in {stuck} of {total} lanes most units are stuck at 0 or at 1, where the penalty's slope no "
            "longer moves them; large steps outrun a long running mean: "
            "try a lower learning_rate or ema_decay, or a longer warmup and beta_warmup"
        )
    return lines


def over_seeds(dataset: xr.Dataset) -> str:
    """What a table's entries are, for its title; of a single seed there is nothing to say."""
    seeds = dataset.sizes["seed"]
    return f", mean +- standard deviation over seeds ({seeds})" if seeds > 1 else ""


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean +- standard deviation; of a single value itself."""
    if values.size == 1:
        return f"{values.item():.{digits}f}"
    with np.errstate(invalid="ignore"):  # A diverged lane may measure as infinite.
        return f"{values.mean():.{digits}f} +- {values.std():.{digits}f}"

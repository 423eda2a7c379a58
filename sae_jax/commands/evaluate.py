"""Put every lane of a finished run to a task, add what it measures to the run's results, and draw it.

    python -m experiments.sweep --dataset digits --classes 0-8 --activation sigmoid --name digits
    python -m experiments.evaluate runs/digits --task probe
    python -m experiments.evaluate runs/digits --task anomaly
    python -m experiments.evaluate runs/digits --task denoising --noise .1 .2 .4

Tasks: probe (a softmax layer on the codes), anomaly (reconstruction error of left-out classes), denoising, inpainting,
retrieval (by similar codes) and stacked (further layers and fine-tuning). The variables go into results.nc, the figure
into figures/TASK.png. Seconds on small data; a probe of 36 lanes on MNIST takes minutes.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from sae_jax.analysis.cells import by_cell, cell_axes, cell_count, in_double_precision, short
from sae_jax.analysis.report import over_seeds, spread
from sae_jax.analysis.tasks import TASKS, TaskConfig, apply
from sae_jax.commands.environment import call, draw_to_files, set_up
from sae_jax.commands.flags import checked_settings, one_line_errors, option, options_of, read
from sae_jax.settings import NON_NEGATIVE, UserError, one_of, setting
from sae_jax.storage import results
from sae_jax.storage import run_folder as runs

MOST_ROWS = 40


@dataclasses.dataclass(frozen=True)
class Where:
    """What is to be done, and on what."""

    task: str = setting("probe", one_of(TASKS), "what to put the lanes to")
    devices: int = setting(0, NON_NEGATIVE, "devices to spread lanes over; 0 is all, on a CPU one per core")


def main(argv: list[str]) -> None:
    """Parse, measure, save, draw, tell."""
    set_up()
    draw_to_files()
    with one_line_errors():
        groups = {
            "task": [
                option("run", ("",), "folder of a finished run", "RUN", False, positional=True),
                *options_of(Where),
            ],
            "settings": options_of(TaskConfig),
        }
        words = read(argv, call("evaluate"), (__doc__ or "").partition("\n")[0], groups)
        if len(words["run"]) != 1 or not words["run"][0]:
            given = " ".join(words["run"]) or "none"
            raise UserError(f"evaluate needs the folder of one finished run, before its flags: got {given}; see runs/")
        where, options = checked_settings(Where, words), checked_settings(TaskConfig, words)
        folder = Path(words["run"][0])
        if runs.is_unfinished(folder) and not (folder / results.RESULTS_FILE).is_file():
            raise UserError(f"a run must be finished: got {folder}, an unfinished one; resume it: --resume {folder}")
        before = results.load(folder)
        dataset, figure = apply(where.task, before, options, devices=where.devices)
        path = folder / "figures" / f"{where.task}.png"
        results.save_figure(figure, path)
        results.save_measures(dataset, folder)
        _tell(dataset, where.task)
        print(f"files:\n  {folder / results.RESULTS_FILE}\n  {path}")


def _tell(dataset: xr.Dataset, task: str) -> None:
    """Print the task's variables, mean and standard deviation over seeds, a row for every cell."""
    names = [str(name) for name in dataset.data_vars if str(name).startswith(f"{task}_")]
    lanes = [name for name in names if "seed" in dataset[name].dims]
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{task}{over_seeds(dataset)}", title_justify="left")
    total, axes = cell_count(dataset), cell_axes(dataset)
    cells = by_cell(dataset[lanes], chosen=range(min(total, MOST_ROWS)))
    for name in [*cells[0][0], *(_heading(dataset[name], task, axes) for name in lanes)]:
        table.add_column(name, justify="right")
    for point, single in cells:
        cell = in_double_precision(single)
        averaged = [cell[name].mean([dim for dim in cell[name].dims if dim != "seed"]).values for name in lanes]
        table.add_row(*map(short, point.values()), *map(spread, averaged))
    console.print(table)
    if total > MOST_ROWS:
        console.print(f"{total - MOST_ROWS} more cells are in the results file")
    for name in sorted(set(names) - set(lanes)):
        values = " ".join(f"{value:.3f}" for value in np.unique(dataset[name].values)[::-1])
        console.print(f"{dataset[name].attrs['long_name']}: {values}", highlight=False)
    diverged = int((dataset["diverged_at"] >= 0).sum()) if "diverged_at" in dataset else 0
    if diverged:
        console.print(f"warning: {diverged} lanes had turned non-finite in training; they are left out, as NaN")


def _heading(variable: xr.DataArray, task: str, axes: list[str]) -> str:
    """A column's heading: the variable's name, and what it is averaged over beside seeds."""
    over = [str(dim).replace("_", " ") for dim in variable.dims if dim != "seed" and dim not in axes]
    words = str(variable.name).removeprefix(f"{task}_").replace("_", " ")
    return f"{words}, mean over {', '.join(over)}" if over else words

"""What a task measured, in words: a row for every cell."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import cell_axes, in_double_precision, short
from sae_jax.analysis.report import MOST_ROWS, Column, plus_minus, print_columns
from sae_jax.analysis.summary import cell_table, digits_of, entry
from sae_jax.sweeps.consoles import plain_console


def print_task(dataset: xr.Dataset, task: str) -> None:
    """Print the task's variables, mean and sample standard deviation over seeds, a row for every cell."""
    names = [str(name) for name in dataset.data_vars if str(name).startswith(f"{task}_")]
    lanes = [name for name in names if "seed" in dataset[name].dims]
    console, axes = plain_console(width=None), cell_axes(dataset)
    averaged = in_double_precision(dataset[lanes]).map(lambda one: _over_the_rest(one, axes), keep_attrs=True)
    table = cell_table(averaged.assign(dataset[["diverged_at"]] if "diverged_at" in dataset else {}), measures=lanes)
    columns = [Column(axis, [short(point[axis]) for point in table.points[:MOST_ROWS]]) for axis in axes]
    for i, name in enumerate(lanes):
        digits, sign = digits_of(table.means[name]), plus_minus(console)
        rows = zip(table.means[name][:MOST_ROWS], table.deviations[name][:MOST_ROWS], strict=True)
        heading = _heading(dataset[name], task, axes)
        columns.append(Column(heading, [entry(*row, digits, sign) for row in rows], i > 0))
    print_columns(console, f"{task}, {table.caption}", columns, len(table.points))
    for name in sorted(set(names) - set(lanes)):
        values = " ".join(f"{value:.3f}" for value in np.unique(dataset[name].values)[::-1])
        console.print(f"{dataset[name].attrs['long_name']}: {values}", highlight=False)
    if table.diverged.any():
        console.print(f"warning: {table.diverged.sum()} lanes had turned non-finite in training; they are left out")


def _over_the_rest(variable: xr.DataArray, axes: list[str]) -> xr.DataArray:
    """A number for every lane: the mean over what a variable has beside lanes."""
    return variable.mean([dim for dim in variable.dims if dim != "seed" and dim not in axes])


def _heading(variable: xr.DataArray, task: str, axes: list[str]) -> str:
    """A column's heading: the variable's name, and what it is averaged over beside seeds."""
    over = [str(dim).replace("_", " ") for dim in variable.dims if dim != "seed" and dim not in axes]
    words = str(variable.name).removeprefix(f"{task}_").replace("_", " ")
    return f"{words}, mean over {', '.join(over)}" if over else words

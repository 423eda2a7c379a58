"""A finished sweep in words: the table of its cells, and warnings of lanes that went wrong."""

from __future__ import annotations

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from sae_jax.analysis.cells import MEAN_ACTIVATION, by_cell, cell_count, lane_measures, short, target

MOST_ROWS = 40
# A unit is stuck at 0 when its mean activation is below this share of rho, and stuck at 1 by the mirror image of that.
STUCK = 0.1
# A lane that explains less variance than this has learned next to nothing.
LEARNED = 0.05


def print_table(console: Console, dataset: xr.Dataset) -> None:
    """Print a row for every cell: its settings and its held-out measures, mean +- standard deviation over seeds."""
    total, measures = cell_count(dataset), lane_measures(dataset)
    diverged = _diverged(dataset)
    columns = xr.Dataset(measures if diverged is None else measures | {"diverged": diverged})
    cells = by_cell(columns, chosen=range(min(total, MOST_ROWS)))
    rho = target(dataset)
    if rho is not None and not rho.dims:
        cells = [({"rho": rho.item(), **point}, cell) for point, cell in cells]
    table = Table(title=f"held-out data{over_seeds(dataset)}", title_justify="left")
    for name in [*cells[0][0], *map(_heading, measures)]:
        table.add_column(name, justify="right")
    if diverged is not None:
        table.add_column("diverged", justify="right", style="red")
    for point, cell in cells:
        row = [short(value) for value in point.values()]
        row += [spread(cell[name].values, 4 if name == MEAN_ACTIVATION else 3) for name in measures]
        if diverged is not None:
            row.append(f"{int(cell['diverged'].sum())} of {cell.sizes['seed']}")
        table.add_row(*row)
    console.print(table)
    if total > MOST_ROWS:
        console.print(f"{total - MOST_ROWS} more cells are in the results file")


def warnings_of(dataset: xr.Dataset) -> list[str]:
    """Lines about lanes that went wrong: that diverged, learned nothing, or whose units are mostly stuck at 0 or 1.

    What a Dataset does not measure, nothing is said about.
    """
    lines, total = [], cell_count(dataset) * dataset.sizes["seed"]
    diverged = _diverged(dataset)
    if diverged is not None:
        lines.append(
            f"warning: {int(diverged.sum())} of {total} lanes turned non-finite and were frozen with their last finite "
            "parameters; try a lower learning_rate, or clip_norm 1"
        )
    if "eval_explained_variance" in dataset:
        nothing = int((dataset["eval_explained_variance"] < LEARNED).sum())
        if nothing:
            lines.append(
                f"warning: {nothing} of {total} lanes explain less than {LEARNED:.0%} of the held-out variance, next "
                "to nothing; try more steps, a larger rho, or a lower beta or weight_decay"
            )
    stuck = _stuck_lanes(dataset)
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


def _diverged(dataset: xr.Dataset) -> xr.DataArray | None:
    """Which lanes turned non-finite; None where none did, or nothing is known of it."""
    diverged = dataset["diverged_at"] >= 0 if "diverged_at" in dataset else None
    return diverged if diverged is not None and bool(diverged.any()) else None


def _stuck_lanes(dataset: xr.Dataset) -> int:
    """The number of lanes most of whose units have a mean activation near 0, or near 1 where that bounds the codes."""
    rho = target(dataset)
    if rho is None or MEAN_ACTIVATION not in dataset or "eval_max_activation" not in dataset:
        return 0
    mean = dataset[MEAN_ACTIVATION]
    bounded = dataset["eval_max_activation"].max("unit") <= 1
    units = mean.notnull().sum("unit")
    low = (mean < STUCK * rho).sum("unit")
    high = ((1 - mean < STUCK * (1 - rho)) & bounded).sum("unit")
    return int((low + high > units / 2).sum())


def _heading(name: str) -> str:
    return name.removeprefix("eval_").replace("_", " ")

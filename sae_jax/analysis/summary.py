"""What a run measured, as tables: a row for every lane, and a row for every cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from sae_jax.analysis.cells import (
    DEAD,
    DEVIATION,
    EXPLAINED,
    F1,
    L0,
    MCC,
    Spread,
    cell_axes,
    lane_measures,
    lane_scalars,
    over_seeds,
    without_constants,
)
from sae_jax.settings import UserError, unknown
from sae_jax.storage.atomic import write_file, writing

SUMMARY_FILE = "summary.csv"
STATUS = ("diverged_at", "stopped_at")
# What tables show first.
FIRST = (EXPLAINED, L0, MCC, F1, DEAD)


class CellTable(NamedTuple):
    """A row for every cell.

    Attributes:
        points: the cells' settings.
        means, deviations, counts: of every measure by name, [cells]: over the seeds that count, and how many these are.
        seeds: seeds of the run.
        diverged: lanes of every cell that diverged, [cells].
        caption: what the numbers are.
    """

    points: list[dict[str, Any]]
    means: dict[str, np.ndarray]
    deviations: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    seeds: int
    diverged: np.ndarray
    caption: str

    @property
    def most_counted(self) -> np.ndarray:
        """The seeds that count in every row, in the measure that has most of them."""
        return np.max([*self.counts.values()], axis=0)


def lane_rows(dataset: xr.Dataset) -> pd.DataFrame:
    """A row for every lane: swept settings, seed, every scalar measure, and the steps at which it diverged or stopped.

    Measures of lanes that diverged are what their last finite parameters give. Lanes that are absent have no row.
    """
    axes, dataset = cell_axes(dataset), without_constants(dataset)
    scalars = lane_scalars(dataset.drop_vars(STATUS[:1], errors="ignore"))
    status = {name: dataset[name] for name in STATUS if name in dataset}
    lanes = xr.Dataset({**scalars, **status}).reset_coords(drop=True)
    rows = lanes.to_dataframe(dim_order=[*axes, "seed"]).reset_index()
    rows = rows[rows[[*scalars, *status]].notna().any(axis=1)]
    return rows.astype({name: int for name in status if rows[name].notna().all()})


def write_summary(dataset: xr.Dataset, folder: Path) -> Path:
    """Write a row for every lane into a run's folder, as CSV; the path.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = folder / SUMMARY_FILE
    with writing(folder):
        write_file(path, lane_rows(dataset).to_csv(index=False, float_format="%.9g").encode())
    return path


def chosen_measures(dataset: xr.Dataset, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """The measures of a table by name: those chosen, else the held-out ones, the most telling ones first.

    Raises:
        UserError: a Dataset has no such measure.
    """
    scalars = lane_scalars(dataset)
    for name in names:
        if name not in scalars:
            raise unknown("measure", name, scalars)
    if names:
        return {name: scalars[name] for name in dict.fromkeys(names)}
    measures = lane_measures(dataset)
    return dict(sorted(measures.items(), key=lambda item: FIRST.index(item[0]) if item[0] in FIRST else len(FIRST)))


def cell_table(dataset: xr.Dataset, by: Sequence[str] | None = None, measures: Sequence[str] = ()) -> CellTable:
    """Means and sample standard deviations over seeds, a row for every combination of some axes' values.

    Where an axis makes no rows, a seed's number is its mean over that axis, so that the deviation stays one over seeds.
    Lanes that diverged or are absent are left out, and so are rows without any lane.

    Args:
        dataset: of a sweep.
        by: axes that make rows; None is all.
        measures: by name; none is the held-out ones.

    Raises:
        UserError: an axis or a measure is none that the Dataset has.
    """
    axes = cell_axes(dataset)
    # A paired setting stands for the dimension that it lies along.
    along = {str(name): str(one.dims[0]) for name, one in dataset.coords.items() if len(one.dims) == 1}
    rows = axes if by is None else list(dict.fromkeys(name if name in axes else along.get(name, name) for name in by))
    for axis in rows:
        if axis not in axes:
            raise (
                unknown("axis", axis, axes)
                if axes
                else UserError(f"--by needs axes: got {axis}, of a run of one cell; leave it out")
            )
    averaged = [axis for axis in axes if axis not in rows]
    chosen = chosen_measures(dataset, measures)
    values = xr.Dataset({name: one.variable for name, one in chosen.items()})
    spreads = {str(name): over_seeds(values[name].mean(averaged).transpose(*rows, "seed")) for name in values.data_vars}
    lanes = (*rows, *averaged, "seed")
    no_lane = xr.zeros_like(next(iter(values.data_vars.values())), dtype=bool)
    diverged = (dataset["diverged_at"] >= 0 if "diverged_at" in dataset else no_lane).transpose(*lanes)
    measured = values.to_dataarray("measure").notnull().any("measure").transpose(*lanes)
    present = (measured | diverged).values
    absent = int((~present).sum())
    within = tuple(range(len(rows), len(lanes)))
    used = present.any(axis=within).ravel()
    points = [
        dict(zip(rows, point, strict=True))
        for point in itertools.product(*(dataset[axis].values.tolist() for axis in rows))
    ]
    numbers = {
        part: {name: getattr(spread, part).values.ravel()[used] for name, spread in spreads.items()}
        for part in Spread._fields
    }
    seeds = int(dataset.sizes["seed"])
    return CellTable(
        [point for point, some in zip(points, used, strict=True) if some],
        numbers["mean"],
        numbers["deviation"],
        numbers["seeds"],
        seeds,
        diverged.values.sum(axis=within).ravel()[used],
        _caption(dataset, seeds, averaged, int(diverged.sum()), absent),
    )


def _caption(dataset: xr.Dataset, seeds: int, averaged: Sequence[str], diverged: int, absent: int) -> str:
    """What the numbers of a table are."""
    words = f"mean +- {DEVIATION} over {seeds} seeds" if seeds > 1 else "one seed"
    if averaged:
        over = ", ".join(f"{axis} ({dataset.sizes[axis]} values)" for axis in averaged)
        words += f"; every seed is a mean over {over}"
    missing = [
        f"{count} lanes that {what}" for count, what in ((diverged, "diverged"), (absent, "are absent")) if count
    ]
    return words + (f"; without {' and '.join(missing)}" if missing else "")


def entry(mean: float, deviation: float, digits: str, sign: str) -> str:
    """Mean and deviation in a table; a mean alone where there is no deviation, a dash where there is neither."""
    if not math.isfinite(mean):
        return "-"
    return format(mean, digits) + (f"{sign}{format(deviation, digits)}" if math.isfinite(deviation) else "")


def digits_of(means: np.ndarray, digits: int = 3) -> str:
    """The format of a column: so many digits of its largest mean, but for one that is tiny or huge."""
    largest = np.abs(means[np.isfinite(means)]).max(initial=0.0)
    if largest and not 1e-3 <= largest < 1e5:
        return f".{digits}g"
    places = digits - 1 - math.floor(math.log10(largest)) if largest else digits
    return f".{int(np.clip(places, 0, digits + 1))}f"

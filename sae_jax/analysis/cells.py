"""Walking through a results Dataset cell by cell, for tables and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.storage.description import axes_of


def in_double_precision(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with its floats as float64, in which sums over the parameters of a diverged lane stay finite."""
    return dataset.map(
        lambda variable: variable.astype(float) if variable.dtype.kind == "f" else variable, keep_attrs=True
    )


def cell_axes(dataset: xr.Dataset) -> list[str]:
    """The swept settings of a Dataset, those of which a single value was selected left out."""
    return [axis for axis in axes_of(dataset) if axis in dataset.dims]


def cell_count(dataset: xr.Dataset) -> int:
    """The number of cells of a sweep."""
    return math.prod(dataset.sizes[axis] for axis in cell_axes(dataset))


def evenly(total: int, most: int) -> list[int]:
    """Positions of at most `most` out of `total` things, evenly apart, the first and the last among them."""
    return [int(place) for place in np.unique(np.linspace(0, total - 1, min(total, most)).round())]


def by_cell(dataset: xr.Dataset, chosen: Iterable[int] | None = None) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Cells of a sweep, each with its settings and its part of the Dataset: all, or those at the chosen positions."""
    axes = cell_axes(dataset)
    shape = [dataset.sizes[axis] for axis in axes]
    cells = []
    for place in range(cell_count(dataset)) if chosen is None else chosen:
        index = np.unravel_index(place, shape) if shape else ()
        cell = dataset.isel(dict(zip(axes, index, strict=True)))
        cells.append(({axis: cell[axis].item() for axis in axes}, cell))
    return cells


def name_of(point: dict[str, Any]) -> str:
    """A cell's name: its settings, as rho=0.05 beta=1."""
    return "  ".join(f"{name}={short(value)}" for name, value in point.items()) or "the only cell"


def target(dataset: xr.Dataset) -> xr.DataArray:
    """rho: along its axis where it was swept, else the one value."""
    return dataset["rho"] if "rho" in dataset.dims else xr.DataArray(float(json.loads(dataset.attrs["config"])["rho"]))


def short(value: Any) -> str:
    """A setting's value in few characters."""
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)

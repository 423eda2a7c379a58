"""Walking through a results Dataset cell by cell, for tables and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.storage.description import names_of_kind

MEAN_ACTIVATION = "eval_mean_activation"


def in_double_precision(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with its floats as float64, in which sums over the parameters of a diverged lane stay finite."""
    return dataset.map(
        lambda variable: variable.astype(float) if variable.dtype.kind == "f" else variable, keep_attrs=True
    )


def lane_measures(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """The held-out measures of whole lanes by name, and the mean activation over units where a Dataset holds it."""
    lanes = (*cell_axes(dataset), "seed")
    names = names_of_kind(dataset, "measure")
    double = in_double_precision(dataset[names])
    measures = {name: double[name] for name in names if double[name].dims == lanes}
    return measures | ({MEAN_ACTIVATION: over_units(double[MEAN_ACTIVATION])} if MEAN_ACTIVATION in double else {})


def over_units(measure: xr.DataArray) -> xr.DataArray:
    """A measure of every unit as its mean over units; one of a whole lane as it is."""
    if "unit" not in measure.dims:
        return measure
    label = f"{measure.attrs.get('long_name', measure.name)}, mean over units"
    return measure.mean("unit").assign_attrs(measure.attrs | {"long_name": label})


def cell_axes(dataset: xr.Dataset) -> list[str]:
    """The swept settings of a Dataset, in order: the dimensions of its lanes' variables that stand before seed."""
    lanes = next((variable.dims for variable in dataset.data_vars.values() if "seed" in variable.dims), ("seed",))
    return [str(dim) for dim in lanes[: lanes.index("seed")]]


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


def target(dataset: xr.Dataset) -> xr.DataArray | None:
    """rho: along its axis where it was swept, else the one value; None where the model has no such setting."""
    if "rho" in dataset.coords:
        return dataset["rho"]
    rho = json.loads(dataset.attrs.get("config", "{}")).get("rho")
    return None if rho is None else xr.DataArray(float(rho))


def short(value: Any) -> str:
    """A setting's value in few characters."""
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)

"""Walking through a results Dataset cell by cell, for tables and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.storage.description import names_of_kind
from sae_jax.sweeps.lane_warnings import MEAN_ACTIVATION
from sae_jax.sweeps.reading import arranged, present

L0, DEAD, EXPLAINED = "eval_l0", "eval_dead_fraction", "eval_explained_variance"
MCC, F1 = "truth_mcc", "truth_f1"
# A coordinate that says which lanes there are, where some are not; only while a Dataset is drawn or printed.
PRESENT = "present"
# How a spread is named wherever one is shown.
DEVIATION = "sample standard deviation"


class Spread(NamedTuple):
    """A quantity over seeds: mean, sample standard deviation (n - 1), NaN where n < 2, and how many seeds count."""

    mean: xr.DataArray
    deviation: xr.DataArray
    seeds: xr.DataArray


def over_seeds(values: xr.DataArray) -> Spread:
    """Mean and sample standard deviation over the seeds whose value is finite, and how many these are."""
    finite = values.astype(float).where(np.isfinite(values))
    with np.errstate(all="ignore"):  # What overflows is infinite without a word.
        return Spread(finite.mean("seed"), finite.std("seed", ddof=1), finite.count("seed"))


def counted(dataset: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """Some variables in double precision, NaN in lanes that diverged, which say nothing of their settings."""
    chosen = in_double_precision(dataset[list(names)])
    if "diverged_at" not in dataset:
        return chosen
    trained = ~(dataset.variables["diverged_at"] >= 0)

    def where_trained(variable: xr.Variable) -> xr.Variable:
        masked = variable.where(trained).transpose(*variable.dims)
        return xr.Variable(masked.dims, masked.data, variable.attrs)

    return _changed(chosen, where_trained, lambda variable: "seed" in variable.dims and variable.dtype.kind == "f")


def with_presence(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset as it is walked through: lanes' dimensions in front, and which lanes there are where some are not."""
    dataset = arranged(dataset)
    present_lanes = present(dataset)
    return dataset if present_lanes is None else dataset.assign_coords({PRESENT: present_lanes.variable})


def without_constants(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset without settings of a single value that nothing shows: every operation would carry all of them on.

    Those that say whether there is a target of the mean activation stay, and what one value has been selected of.
    """
    shown = {"rho", "beta", *json.loads(dataset.attrs.get("axes", "[]"))}
    return dataset.drop_vars([name for name, one in dataset.coords.items() if not one.dims and name not in shown])


def in_double_precision(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with its floats as float64, in which sums over the parameters of a diverged lane stay finite."""
    return _changed(dataset, lambda variable: variable.astype(float), lambda variable: variable.dtype.kind == "f")


def _changed(
    dataset: xr.Dataset, change: Callable[[xr.Variable], xr.Variable], which: Callable[[xr.Variable], bool]
) -> xr.Dataset:
    """The Dataset with some of its variables changed: as Dataset.map, which takes a hundred times as long."""
    variables = {name: dataset.variables[name] for name in dataset.data_vars}
    return dataset.assign({name: change(variable) for name, variable in variables.items() if which(variable)})


def lane_scalars(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Every measure that is one number a lane, by name: held-out ones, tasks', and the mean activation over units."""
    lanes = (*cell_axes(dataset), "seed")
    names = [*names_of_kind(dataset, "measure"), *names_of_kind(dataset, "task")]
    names = [name for name in names if dataset[name].dims == lanes or name == MEAN_ACTIVATION]
    scalars = counted(dataset, names)
    return {name: over_units(scalars[name]) for name in names}


def lane_measures(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """The held-out measures of whole lanes by name, and the mean activation over units where a Dataset holds it.

    Where codes are dense, the number of active units says nothing, and neither does the share of dead ones.
    """
    scalars, dense = lane_scalars(dataset), not is_sparse(dataset)
    names = [name for name in names_of_kind(dataset, "measure") if name in scalars and name != MEAN_ACTIVATION]
    names = [name for name in names if not (dense and name in (L0, DEAD))]
    return {name: scalars[name] for name in names + [MEAN_ACTIVATION] * (MEAN_ACTIVATION in scalars)}


def is_sparse(dataset: xr.Dataset) -> bool:
    """Whether any lane has fewer units active on a sample than it has units."""
    if L0 not in dataset or MEAN_ACTIVATION not in dataset:
        return L0 in dataset
    return bool((dataset[L0] < 0.999 * dataset[MEAN_ACTIVATION].notnull().sum("unit")).any())


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
    """The number of cells of which there are lanes."""
    return len(_cells(dataset))


def _cells(dataset: xr.Dataset) -> np.ndarray:
    """The places of all cells of which there are lanes, in order."""
    axes = cell_axes(dataset)
    if PRESENT not in dataset.coords:
        return np.arange(math.prod(dataset.sizes[axis] for axis in axes))
    return np.flatnonzero(dataset[PRESENT].any("seed").transpose(*axes).values)


def evenly(total: int, most: int) -> list[int]:
    """Positions of at most `most` out of `total` things, evenly apart, the first and the last among them."""
    return [int(place) for place in np.unique(np.linspace(0, total - 1, min(total, most)).round())]


def by_cell(dataset: xr.Dataset, chosen: Iterable[int] | None = None) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Cells of a sweep, each with its settings and its part of the Dataset, of the seeds that it has.

    Args:
        dataset: of a sweep, or any of its variables.
        chosen: positions among the cells of which there are lanes; None is all.
    """
    axes, every = cell_axes(dataset), _cells(dataset)
    shape = [dataset.sizes[axis] for axis in axes]
    cells = []
    for place in every if chosen is None else every[list(chosen)]:
        index = np.unravel_index(place, shape) if shape else ()
        cell = dataset.isel(dict(zip(axes, index, strict=True)))
        if PRESENT in cell.coords:
            cell = cell.isel(seed=np.flatnonzero(cell[PRESENT].values))
        cells.append(({axis: cell[axis].item() for axis in axes}, cell))
    return cells


def name_of(point: dict[str, Any]) -> str:
    """A cell's name: its settings, as rho=0.05 beta=1."""
    return "  ".join(f"{name}={short(value)}" for name, value in point.items())


def selected_of(dataset: xr.Dataset) -> dict[str, Any]:
    """The settings that a run swept and of which one value has been selected since."""
    axes = json.loads(dataset.attrs.get("axes", "[]"))
    return {axis: dataset[axis].item() for axis in axes if axis in dataset.coords and not dataset[axis].dims}


def is_numeric(values: xr.DataArray) -> bool:
    """Whether a setting's values are numbers."""
    return values.dtype.kind in "fiu"


def short(value: Any, digits: int = 6) -> str:
    """A setting's value in few characters."""
    return f"{value:.{digits}g}" if isinstance(value, (float, np.floating)) else str(value)


def shorts(values: Iterable[Any]) -> list[str]:
    """Values of a setting, each in few characters, and as many digits as tell those apart that differ."""
    values = list(values)
    candidates = ([short(value, digits) for value in values] for digits in range(6, 17))
    apart = (words for words in candidates if len(set(words)) == len(set(values)))
    return next(apart, [short(value, 17) for value in values])  # Of 17 digits any two floats differ.

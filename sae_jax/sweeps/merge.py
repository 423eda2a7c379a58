"""Several sweeps as one Dataset."""

from __future__ import annotations

import collections
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.data.config import DataConfig
from sae_jax.models import Model
from sae_jax.settings import SweepWarning, UserError, received, settings_of
from sae_jax.storage import plugin_list
from sae_jax.storage.description import PARAMETERS_OF, lane_dims, names_of_kind
from sae_jax.sweeps.dataset import CONSISTENCY, SUMMARY, grid_coordinates
from sae_jax.sweeps.grid import Grid, fields_of
from sae_jax.sweeps.keep import of_all_lanes
from sae_jax.sweeps.reading import OF_LANES, alike, arranged, described, grid_of, present, recorded, summaries
from sae_jax.sweeps.split import STARTED_FROM

# Lanes of two sweeps are taken for one where their numbers agree so far; how lanes are packed changes them less.
RTOL, ATOL = 1e-5, 1e-6


class Part(NamedTuple):
    """A sweep on its way into a union.

    Attributes:
        dataset: as `arranged`, with parameters of all lanes; of those that kept none NaN.
        grid: what it was trained over.
        lanes: numbers of the lanes that it has, the seeds fastest.
        places: where they stand in the union, [lanes] along each of its dimensions, then seed.
    """

    dataset: xr.Dataset
    grid: Grid
    lanes: np.ndarray
    places: tuple[np.ndarray, ...] = ()


def merge(*datasets: xr.Dataset, model: Model | None = None, names: Sequence[str] | None = None) -> xr.Dataset:
    """Sweeps that differ in some settings or seeds as one.

    Lanes that several hold alike are taken once; what none holds is NaN, and so is how alike the seeds of a cell are of
    which no sweep has all, and what one lacks, such as what a task has measured.

    Args:
        datasets: of sweeps of one model, on the same samples wherever their settings of the data are the same.
        model: the record, where the model is none that sae_jax knows by name.
        names: of the sweeps, in messages; None numbers them.

    Returns:
        A Dataset whose dimensions are the settings that vary in one sweep or between them, seed, and the rest.

    Raises:
        UserError: the models or the samples differ, or a lane that two hold.

    Warns:
        SweepWarning: a sweep lacks a measure, what a task has measured, or parameters, which another has.
    """
    if not datasets:
        raise UserError("merge needs a sweep: got none; name some")
    names = [f"sweep {number + 1}" for number in range(len(datasets))] if names is None else names
    if not isinstance(names, (list, tuple)) or [*map(type, names)] != [str] * len(datasets):
        raise UserError(f"names must be one a sweep, {len(datasets)}: got {received(names)}; leave them out")
    parts = [_part(dataset, model) for dataset in datasets]
    models = list(dict.fromkeys(part.grid.model.name for part in parts))
    if len(models) > 1:
        raise UserError(f"merged sweeps must be of one model: got {' and '.join(models)}; merge those of each")
    _check_samples(parts)
    grid = _union([part.grid for part in parts])
    parts = [part._replace(places=_places(part, grid)) for part in parts]
    inner = _inner_coordinates([part.dataset for part in parts], (*grid.dims, "seed"))
    of_parts = [list(zip(*(axis.tolist() for axis in part.places), strict=True)) for part in parts]
    lanes = set(itertools.chain(*of_parts))
    full = len(lanes) == math.prod(map(len, grid.labels.values())) * len(grid.seeds)
    every = dict.fromkeys(str(name) for part in parts for name in part.dataset.data_vars)
    variables = {name: _joined(name, parts, grid, inner, full) for name in every}
    _warn_of_absent(variables, parts, names)
    if CONSISTENCY in variables:
        variables[CONSISTENCY] = _of_whole_cells(variables[CONSISTENCY], of_parts)
    summary = _joined(SUMMARY, parts, grid, inner, full)
    texts = sorted(set(summary.values.ravel().tolist()) - {""})
    coordinates = {
        **inner,
        **grid_coordinates(grid),
        SUMMARY: summary if len(texts) > 1 else ((), texts[0], summary.attrs),
    }
    plugins = plugin_list.joined(*map(plugin_list.recorded, datasets))
    named = {plugin_list.ATTRIBUTE: json.dumps(plugins)} if plugins else {}
    united = xr.Dataset(variables, coordinates, {"title": parts[0].dataset.attrs.get("title", "")} | named)
    origins = dict.fromkeys(dataset.attrs[STARTED_FROM] for dataset in datasets if STARTED_FROM in dataset.attrs)
    started = {STARTED_FROM: " and ".join(origins)} if origins else {}
    without_parameters = {} if names_of_kind(united, "parameter") else {PARAMETERS_OF: "none"}
    return described(united, grid).assign_attrs(started | without_parameters)


def _warn_of_absent(variables: Mapping[str, xr.Variable], parts: Sequence[Part], names: Sequence[str]) -> None:
    """Say what of lanes is NaN because their sweep lacks it, where settings are not why."""
    lacking = []
    for part, sweep in zip(parts, names, strict=True):
        others = {name: one for name, one in variables.items() if "seed" in one.dims and name not in part.dataset}
        kinds = {name: one.attrs.get("kind") for name, one in others.items()}
        absent = [name for name, kind in kinds.items() if kind in ("task", "name") or name.startswith("eval_")]
        without_parameters = not names_of_kind(part.dataset, "parameter") and "parameter" in kinds.values()
        if absent := absent + ["parameters"] * without_parameters:
            lacking.append(f"{sweep} without {', '.join(absent)}")
    if lacking:
        warnings.warn(
            f"what a merged sweep lacks is NaN for its lanes: got {' and '.join(lacking)}; measure it there too, or "
            "train it again with what it lacks",
            SweepWarning,
            stacklevel=3,
        )


def _part(dataset: xr.Dataset, model: Model | None) -> Part:
    dataset = of_all_lanes(arranged(dataset))
    grid, present_lanes = grid_of(dataset, model), present(dataset)
    if SUMMARY not in dataset.coords:
        texts = [json.dumps(one) for one in recorded(dataset, "data", list)]
        if len(texts) != math.prod(grid.program_dims.values()):
            raise UserError("merged sweeps must name their samples: got some that do not; train them again")
        shape = tuple(grid.program_dims.values())
        dataset = dataset.assign_coords({SUMMARY: (tuple(grid.program_dims), np.asarray(texts).reshape(shape))})
    total = math.prod(map(len, grid.labels.values())) * len(grid.seeds)
    lanes = (
        np.arange(total)
        if present_lanes is None
        else np.flatnonzero(present_lanes.transpose(*grid.dims, "seed").values)
    )
    return Part(dataset, grid, lanes)


def _check_samples(parts: Sequence[Part]) -> None:
    """Refuse sweeps of the same settings of the data on different samples."""
    known: dict[tuple[Any, ...], list[float | str]] = {}
    for part in parts:
        for number, (point, _, config) in enumerate(part.grid.programs()):
            where = {dim: part.grid.labels[dim].index(label) for dim, label in point.items()}
            for summary in summaries(part.dataset.isel(where), number):
                key = tuple(getattr(config, name) for name in settings_of(DataConfig))
                if not alike(known.setdefault(key, summary), summary):
                    raise UserError(
                        f"merged sweeps must be trained on the same samples: got others of dataset {config.dataset}; "
                        "merge those of each"
                    )


def _union(grids: Sequence[Grid]) -> Grid:
    """The grid of all settings that vary in one of some grids or between them."""
    values = {
        name: _distinct([grid.axes.get(name, (grid.constant.get(name),)) for grid in grids])
        for name in fields_of(grids[0].model)
    }
    varying = [name for name, several in values.items() if len(several) > 1 or any(name in grid.axes for grid in grids)]
    # Settings that one grid pairs are paired in the union, with all that others pair them with.
    groups: list[list[str]] = []
    for names in [*(names for grid in grids for names in grid.dims.values()), *([name] for name in varying)]:
        touched = [group for group in groups if set(group) & set(names)]
        together = list(dict.fromkeys(itertools.chain(*touched, names)))
        place = groups.index(touched[0]) if touched else len(groups)
        groups = [group for group in groups if group not in touched]
        groups.insert(place, together)
    axes: dict[str, tuple[Any, ...]] = {}
    dims: dict[str, tuple[str, ...]] = {}
    for group in groups:
        if len(group) == 1:
            axes[group[0]] = values[group[0]]
        else:
            rows = dict.fromkeys(row for grid in grids for row in _rows(grid, group))
            axes |= zip(group, zip(*rows, strict=True), strict=True)
        same = [dim for grid in grids for dim, names in grid.dims.items() if set(names) == set(group)]
        dims[same[0] if same else "_".join(group)] = tuple(group)
    single = {name: several[0] for name, several in values.items() if name not in axes}
    of_data = {name: single.pop(name) for name in settings_of(DataConfig) if name in single}
    seeds = _distinct([grid.seeds for grid in grids])
    return Grid(grids[0].model, DataConfig(**of_data), single, axes, dims, seeds)


def _distinct(several: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """All values of several axes, ascending where each of them is ascending numbers, else as they come."""
    axes = list(several)
    values = list(dict.fromkeys(itertools.chain(*axes)))
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return tuple(sorted(values) if numbers and all(list(axis) == sorted(axis) for axis in axes) else values)


def _rows(grid: Grid, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of some settings that a grid has together."""
    return list(dict.fromkeys(tuple(values[name] for name in names) for _, values in grid.cells()))


def _places(part: Part, grid: Grid) -> tuple[np.ndarray, ...]:
    """Where a part's lanes stand in the union, [lanes] along each of its dimensions, then seed."""
    rows = {
        dim: {row: place for place, row in enumerate(zip(*(grid.axes[n] for n in names), strict=True))}
        for dim, names in grid.dims.items()
    }
    cells = [
        [rows[dim][tuple(values[name] for name in names)] for dim, names in grid.dims.items()]
        for _, values in part.grid.cells()
    ]
    cell, seed = np.divmod(part.lanes, len(part.grid.seeds))
    of_seeds = np.asarray([grid.seeds.index(one) for one in part.grid.seeds])
    return (*np.asarray(cells, int).reshape(len(cells), len(grid.dims))[cell].T, of_seeds[seed])


def _inner_coordinates(datasets: Sequence[xr.Dataset], lanes: Sequence[str]) -> dict[str, xr.Variable]:
    """The coordinates that are of no lanes, such as step and unit, each with the values of all sweeps."""
    inner: dict[str, xr.Variable] = {}
    for dataset in datasets:
        of_lanes = (*lane_dims(dataset), "seed", *lanes)
        for name, values in dataset.coords.items():
            if values.dims == (name,) and name not in of_lanes:
                before = inner[str(name)].values if name in inner else values.values[:0]
                inner[str(name)] = xr.Variable(values.dims, np.union1d(before, values.values), values.attrs)
    return inner


def _joined(name: str, parts: Sequence[Part], grid: Grid, inner: Mapping[str, xr.Variable], full: bool) -> xr.Variable:
    """A variable of all parts in the union's places; refuses lanes that differ between two."""
    some = [part for part in parts if name in part.dataset.variables]
    first = some[0].dataset[name]
    per_lane = first.attrs.get("kind") in OF_LANES or "seed" in first.dims
    dims = (*grid.dims, "seed") if per_lane else tuple(grid.program_dims)
    shared = [list((*grid.dims, "seed")).index(dim) for dim in dims]
    beside = tuple(str(dim) for dim in first.dims if dim in inner)
    sizes = [*(len(grid.labels.get(dim, grid.seeds)) for dim in dims), *(inner[dim].size for dim in beside)]
    missing: Any = "" if first.dtype.kind in "OU" else 0
    shorter = any(part.dataset.sizes[dim] < inner[dim].size for part in some for dim in beside)
    whole = full and len(some) == len(parts) and not shorter
    dtype = first.dtype if first.dtype.kind in "fOU" or whole or not per_lane else np.dtype(np.float64)
    values = np.full(sizes, np.nan if dtype.kind == "f" else missing, object if dtype.kind in "OU" else dtype)
    taken = np.zeros([sizes[i] for i in range(len(dims))], bool)
    for part in some:
        where = tuple(part.places[i] for i in shared)
        rows = _lane_rows(part, name, beside, inner)
        if first.attrs.get("kind") == "parameter":  # Of a lane whose sweep kept none, another may have some.
            with_parameters = ~np.isnan(rows).reshape(len(rows), -1).all(axis=1)
            rows, where = rows[with_parameters], tuple(axis[with_parameters] for axis in where)
        twice = taken[where] if dims else np.broadcast_to(taken, len(rows))
        if per_lane and first.attrs.get("kind") in (*OF_LANES, "status") and twice.any():
            before = values[tuple(axis[twice] for axis in where)]
            _check_alike(name, before, rows[twice], part, grid, tuple(axis[twice] for axis in where))
        values[where] = rows if dims else rows[0]
        taken[where] = True
    return xr.Variable((*dims, *beside), values.astype(str) if dtype.kind in "OU" else values, first.attrs)


def _of_whole_cells(variable: xr.Variable, of_parts: Sequence[Sequence[tuple[int, ...]]]) -> xr.Variable:
    """A comparison of all seeds of a cell, where the lanes of one part are all of them; NaN elsewhere."""
    seeds = collections.Counter(lane[:-1] for lane in set(itertools.chain(*of_parts)))
    counts = [collections.Counter(lane[:-1] for lane in lanes) for lanes in of_parts]
    values = variable.values.copy()
    for cell, count in seeds.items():
        if max(of_part[cell] for of_part in counts) < count:
            values[cell] = np.nan
    return xr.Variable(variable.dims, values, variable.attrs)


def _lane_rows(part: Part, name: str, beside: Sequence[str], inner: Mapping[str, xr.Variable]) -> np.ndarray:
    """A variable's numbers of each of a part's lanes, [lanes, ...], filled up with NaN where others are longer."""
    variable = part.dataset[name].reset_coords(drop=True)
    lanes = (*part.grid.dims, "seed")
    longer = {dim: inner[dim].values for dim in beside if variable.sizes[dim] < inner[dim].size}
    wide = variable.reindex(longer, fill_value="" if variable.dtype.kind in "OU" else np.nan)
    place = np.unravel_index(part.lanes, [part.dataset.sizes[dim] for dim in lanes])
    index = tuple(where for dim, where in zip(lanes, place, strict=True) if dim in wide.dims)
    values = wide.transpose(*(dim for dim in lanes if dim in wide.dims), *beside).values
    return values[index] if index else np.broadcast_to(values, (len(part.lanes), *values.shape))


def _check_alike(
    name: str, before: np.ndarray, now: np.ndarray, part: Part, grid: Grid, where: Sequence[np.ndarray]
) -> None:
    near = np.isclose(before.astype(float), now.astype(float), rtol=RTOL, atol=ATOL, equal_nan=True)
    wrong = np.flatnonzero(~near.reshape(len(near), -1).all(axis=1))
    if wrong.size:
        places = dict(zip((*grid.dims, "seed"), (int(axis[wrong[0]]) for axis in where), strict=True))
        lane = {n: grid.axes[n][places[dim]] for dim, names in grid.dims.items() for n in names}
        named = ", ".join(f"{n} {value}" for n, value in {**lane, "seed": grid.seeds[places["seed"]]}.items())
        raise UserError(
            f"lanes that two merged sweeps hold must be equal: got another {name} of {named}; leave it out of one"
        )

"""What a page holds of a run's grid: its axes, the measures of every lane, and the curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import DEVIATION, EXPLAINED, cell_axes, evenly, is_numeric, lane_scalars, shorts
from sae_jax.analysis.lines import CONSISTENCY, SPARSITY_SETTINGS, frontier_measures, shown_curves
from sae_jax.analysis.run import Run
from sae_jax.analysis.style import label_of
from sae_jax.analysis.summary import chosen_measures
from sae_jax.pages.packing import Packer
from sae_jax.sweeps.lane_warnings import target

MOST_POINTS, FEWEST_POINTS = 300, 40
CURVE_BYTES = 3_000_000


def grid_part(run: Run, dataset: xr.Dataset, packer: Packer, left_out: list[str]) -> dict[str, Any]:
    """Axes, measures [cells, seeds], the lanes' states and curves [cells, seeds, points] of a run.

    Args:
        run: whose lanes they are.
        dataset: its Dataset, as `with_presence` gives it.
        packer: takes the arrays.
        left_out: is told in words what the page leaves out.
    """
    settings = [name for name in run.fields if name in dataset.coords]
    axes, scalars = cell_axes(dataset), lane_scalars(dataset)
    usual = list(chosen_measures(dataset, ())) if scalars else []
    names = [*usual, *(name for name in scalars if name not in usual)]
    x, y = frontier_measures(dataset)
    numeric = [axis for axis in axes if is_numeric(dataset[axis])]
    along = next((axis for axis in SPARSITY_SETTINGS if axis in numeric), numeric[0] if numeric else "")
    rho = target(dataset)
    return {
        "axes": [_axis(dataset, axis, settings) for axis in axes],
        "seeds": [int(seed) for seed in dataset["seed"].values],
        "measures": [
            {
                "name": name,
                "label": label_of(scalars[name]),
                "lower": name in run.dataset and run.lower_is_better(name),
                "values": packer.put(_flat(scalars[name], axes), exact=True),
            }
            for name in names
        ],
        "frontier": {"x": x, "y": y, "along": along},
        "deviation": DEVIATION,
        "diverged": packer.put(_ends(dataset, axes)),
        "rho": None if rho is None else packer.put(_per_cell(rho, dataset, axes), exact=True),
        "curves": _curves(dataset, axes, packer, left_out),
    }


def best_first(dataset: xr.Dataset) -> tuple[np.ndarray, list[int]]:
    """The seed to show first of every cell, by position, and all lanes in the order in which they are given room.

    The best seed has the highest explained variance, or the first of those that did not diverge; -1 where a cell holds
    none. Lanes are numbered cell by cell, the seeds fastest: first every cell's best, the best of these first.
    """
    axes = cell_axes(dataset)
    ends = _ends(dataset, axes)
    scalars = lane_scalars(dataset)
    score = _flat(scalars[EXPLAINED], axes) if EXPLAINED in scalars else np.zeros(ends.shape)
    score = np.where(ends == -1, np.nan_to_num(score, nan=-1e30, neginf=-1e30), -np.inf)
    best, highest = score.argmax(axis=1), score.max(axis=1)
    best = np.where(highest > -np.inf, best, np.where((ends > -2).any(axis=1), (ends > -2).argmax(axis=1), -1))
    seeds = ends.shape[1]
    cells = [int(cell) for cell in np.argsort(-highest, kind="stable") if best[cell] >= 0]
    first = [cell * seeds + int(best[cell]) for cell in cells]
    chosen = set(first)
    others = [int(lane) for lane in np.flatnonzero(ends.ravel() > -2) if lane not in chosen]
    return best, [*first, *others]


def _axis(dataset: xr.Dataset, axis: str, settings: Iterable[str]) -> dict[str, Any]:
    """A dimension of the cells: its values in words, and as numbers where they are; of paired settings those."""
    values = dataset[axis]
    paired = [str(name) for name in settings if name != axis and dataset[name].dims == (axis,)]
    words = shorts(values.values.tolist())
    if paired and axis != "model":  # What else its architectures differ in goes without saying.
        columns = [[f"{name} {word}" for word in shorts(dataset[name].values.tolist())] for name in paired]
        words = [", ".join(row) for row in zip(*([words] if axis in settings else []), *columns, strict=True)]
    numbers = [float(str(value)) for value in values.values] if is_numeric(values) else None
    return {"name": axis, "label": label_of(values), "values": words, "numbers": numbers}


def _flat(values: xr.DataArray, axes: list[str]) -> np.ndarray:
    """A variable of lanes as [cells, seeds, ...]."""
    array = values.transpose(*axes, "seed", ...).values.astype(float)
    return array.reshape(-1, *array.shape[len(axes) :])


def _ends(dataset: xr.Dataset, axes: list[str]) -> np.ndarray:
    """Step at which a lane diverged; -1 where it did not, -2 where there is no lane, [cells, seeds]."""
    if "diverged_at" not in dataset:
        shape = [dataset.sizes[axis] for axis in axes]
        return np.full((int(np.prod(shape)), dataset.sizes["seed"]), -1)
    ends = _flat(dataset["diverged_at"], axes)
    return np.where(np.isnan(ends), -2, np.nan_to_num(ends)).astype(int)


def _per_cell(values: xr.DataArray, dataset: xr.Dataset, axes: list[str]) -> np.ndarray:
    """A setting as a number for every cell."""
    sizes = {axis: dataset.sizes[axis] for axis in axes}
    spread = values.expand_dims({axis: size for axis, size in sizes.items() if axis not in values.dims})
    return spread.transpose(*axes).values.astype(float).ravel()


def _curves(dataset: xr.Dataset, axes: list[str], packer: Packer, left_out: list[str]) -> list[dict[str, Any]]:
    """Every curve at a few hundred of its points, evenly apart."""
    names = shown_curves(dataset) + [CONSISTENCY] * (CONSISTENCY in dataset)
    lanes = int(np.prod([dataset.sizes[axis] for axis in (*axes, "seed")]))
    most = int(np.clip(CURVE_BYTES / (4 * lanes * max(len(names), 1)), FEWEST_POINTS, MOST_POINTS))
    curves = []
    for name in names:
        [dim] = [str(dim) for dim in dataset[name].dims if dim not in (*axes, "seed")]
        places = evenly(dataset.sizes[dim], most)
        values = _flat(dataset[name].isel({dim: places}), axes)
        if len(places) < dataset.sizes[dim] and name == names[0]:
            left_out.append(f"Curves are drawn at {len(places)} of the {dataset.sizes[dim]} steps that were logged.")
        label = label_of(dataset[name]).partition(", mean since")[0]
        x = {"label": label_of(dataset[dim]), "values": packer.put(dataset[dim].values[places].astype(float), True)}
        curves.append({"name": name, "label": label, "x": x, "values": packer.put(values)})
    return curves

"""Which lanes of a grid are trained: not those that are equal to others, nor those of an earlier sweep."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from sae_jax.data.config import DataConfig
from sae_jax.models import has_its_name
from sae_jax.settings import UserError, flag, settings_of, unread
from sae_jax.storage.arrays import Opener
from sae_jax.sweeps.dataset import SUMMARY, put, variables_of, widths_of
from sae_jax.sweeps.grid import Grid
from sae_jax.sweeps.keep import of_all_lanes
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.program import Point, Program, lists_of
from sae_jax.sweeps.reading import alike, arranged, grid_of, present, summaries
from sae_jax.sweeps.study import Earlier, Study
from sae_jax.training.config import TrainingSettings
from sae_jax.training.lane import snapshot_steps, windows

# The attribute that names the sweep whose lanes were trained on.
STARTED_FROM = "started_from"
# Settings that say where samples lie.
MOVED = ("dataset", "data_dir")
# What a lane is, its seed aside: the values of the settings that it reads.
Key = tuple[Any, ...]
# Lanes that one program trains: number of their point, positions among its cells [cells] and the grid's seeds [seeds].
Group = tuple[int, np.ndarray, np.ndarray]


def to_train(grid: Grid, equal: Mapping[int, int], known: np.ndarray) -> list[Group]:
    """The lanes of a grid that are trained; equal and known are those of `Study`."""
    points, groups = points_of(grid), list[Group]()
    for point in np.unique(points).tolist():
        missing: dict[tuple[int, ...], list[int]] = {}
        for position, cell in enumerate(np.flatnonzero(points == point).tolist()):
            seeds = tuple(np.flatnonzero(known[cell] < 0).tolist())
            if cell not in equal and seeds:
                missing.setdefault(seeds, []).append(position)
        groups += [(point, np.asarray(cells), np.asarray(seeds)) for seeds, cells in missing.items()]
    return groups


def first_alike(grid: Grid, start: np.ndarray | None = None) -> tuple[dict[Key, int], dict[int, int]]:
    """The first cell of every kind, and the cells that equal an earlier one: {cell: the one that it equals}.

    Args:
        grid: whose cells they are.
        start: what their lanes start from, [cells, seeds], as `lanes_of` finds it; None is at random.
    """
    keys = [_key(grid, values) for _, values in grid.cells()]
    if start is not None:  # Lanes of other starts are others, whatever they read from there on.
        keys = [(*key, *lanes) for key, lanes in zip(keys, start.tolist(), strict=True)]
    first: dict[Key, int] = {}
    for cell, key in enumerate(keys):
        first.setdefault(key, cell)
    return first, {cell: first[key] for cell, key in enumerate(keys) if first[key] != cell}


def fill(study: Study, opened: Opener) -> None:
    """Put the lanes of the sweep that a study extends where they belong; opened finds the arrays of all lanes.

    A term of the loss that was off in all of them, and is not here, was 0.
    """
    if study.earlier is None:
        return
    points, dataset = points_of(study.grid), study.earlier.dataset
    lanes_before = (*study.earlier.grid.dims, "seed")
    for number, point in enumerate(study.points):
        [cells] = np.nonzero(points == number)
        places, seeds = np.nonzero(study.known[cells] >= 0)
        if not places.size:
            continue
        rows = np.unravel_index(study.known[cells][places, seeds], [dataset.sizes[dim] for dim in lanes_before])
        steps = windows(point.settings.training.steps)
        inside: dict[str, Any] = {
            "step": np.searchsorted(dataset["step"].values, steps),
            "unit": slice(point.settings.model.d_hidden),
            **{dim: slice(width) for dim, width in widths_of(point).items()},
        }
        if "snapshot" in dataset.coords:
            inside["snapshot"] = np.searchsorted(dataset["snapshot"].values, snapshot_steps(point.settings))
        values = {}
        for name, variable in variables_of(point.settings, point.data.truth).items():
            if name in dataset or variable.kind == "curve":
                source = dataset[name] if name in dataset else 0 * dataset["loss"]
                index = {dim: inside[dim] for dim in variable.dims}
                values[name] = source.isel(index).values[rows].astype(variable.dtype)
        put(study, opened, number, values, places, seeds)


def sameness(earlier: Earlier, points: Sequence[Point], programs: Sequence[Program]) -> str:
    """In what a grid that was trained in parts equals the one that is trained at once."""
    before, now = earlier.cells_per_block, {program.plan.cells_per_block for program in programs}
    alike = {jax.tree.structure(settings) for _, settings, _ in earlier.grid.programs()}
    if not alike <= {jax.tree.structure(point.settings) for point in points}:
        return "the whole equals one training to 1e-5 relative: a term is on that was off before"
    cells = [settings for _, settings, _ in earlier.grid.programs()]
    lists = {lists_of(one) for one in (*cells, *(point.settings for point in points), *(p.settings for p in programs))}
    if now <= {before} and 1 in now and len(lists) > 1:
        return "the whole equals one training to 1e-5 relative: its lists of active codes would be of another length"
    if now <= {before}:
        return (
            f"the whole equals one training in blocks of {count(before, 'cell')}, as all of its lanes are, to the bit"
        )
    sizes = f"new lanes are in blocks of {' and '.join(map(str, sorted(now)))}"
    others = f"in blocks of {before}" if before else "as was not recorded"
    return f"the whole equals one training to 1e-5 relative: {sizes}, the others {others}"


def lane_keys(grid: Grid, dataset: xr.Dataset) -> dict[tuple[Key, int], int]:
    """The lanes that a Dataset holds: (what it is, its seed) -> its number, the seeds fastest."""
    present_lanes, lanes = present(dataset), {}
    mask = None if present_lanes is None else present_lanes.transpose(*grid.dims, "seed").values.ravel()
    for cell, (_, values) in enumerate(grid.cells()):
        key = _key(grid, values)
        for place, seed in enumerate(grid.seeds):
            lane = cell * len(grid.seeds) + place
            if mask is None or mask[lane]:
                lanes[key, seed] = lane
    return lanes


def earlier_sweep(dataset: xr.Dataset, name: str, model: Any = None) -> Earlier:
    """A sweep to extend, from its results.

    Args:
        dataset: its results.
        name: for messages.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the Dataset does not name its settings.
    """
    earlier = Earlier(of_all_lanes(arranged(dataset)), grid_of(dataset, model), name, {})
    if STARTED_FROM in dataset.attrs:
        origin = dataset.attrs[STARTED_FROM]
        raise UserError(
            f"cannot extend {name}: its lanes must have started at random: got some that start from {origin}; train "
            f"the others with {flag('start_from')} {origin}, and merge"
        )
    return earlier


def known_lanes(
    grid: Grid, earlier: Earlier | None, first: Mapping[Key, int], samples: Sequence[list[float | str]]
) -> np.ndarray:
    """The lanes of a grid that the sweep has which it extends: their numbers there, [cells, seeds]; -1 for the others.

    Args:
        grid: what is wanted.
        earlier: the sweep, if any.
        first: the first cell of every kind, as `first_alike` finds them.
        samples: summary of each point's samples.

    Raises:
        UserError: the sweep has lanes that the grid has not, or other samples.
    """
    known = np.full((math.prod(map(len, grid.labels.values())), len(grid.seeds)), -1)
    if earlier is None:
        return known
    if earlier.grid.model.name != grid.model.name:
        raise UserError(
            f"cannot extend: the model must be that of {earlier.name}: got {grid.model.name}; use "
            f"{earlier.grid.model.name}, or begin a new sweep"
        )
    # Data that were moved are known by their samples, below.
    elsewhere = {name: grid.constant[name] for name in MOVED if name in grid.constant and name in earlier.grid.constant}
    before = dataclasses.replace(earlier.grid, data=dataclasses.replace(earlier.grid.data, **elsewhere))
    seeds = {seed: place for place, seed in enumerate(grid.seeds)}
    points, points_before = points_of(grid), points_of(earlier.grid)
    pairs: dict[tuple[int, int], int] = {}
    for (key, seed), lane in lane_keys(before, earlier.dataset).items():
        cell, _ = divmod(lane, len(earlier.grid.seeds))
        if key not in first or seed not in seeds:
            raise UserError(
                f"cannot extend: the grid must hold every lane of {earlier.name}: got one without "
                f"{_lane_name(earlier.grid, cell, seed)}; name all of its values, and those to add"
            )
        known[first[key], seeds[seed]] = lane
        pairs.setdefault((int(points[first[key]]), int(points_before[cell])), cell)
    for (point, number), cell in pairs.items():
        where = np.unravel_index(cell, [len(labels) for labels in earlier.grid.labels.values()])
        part = earlier.dataset.isel(dict(zip(earlier.grid.dims, where, strict=True)))
        # Earlier versions computed them in another precision.
        exactly = SUMMARY in part.coords
        if not any(alike(samples[point], one, exactly) for one in summaries(part, number)):
            raise UserError(
                f"cannot extend: the samples must be those of {earlier.name}: got others; "
                "put the same back, or begin a new sweep"
            )
    return known


def known_line(earlier: Earlier, known: np.ndarray, groups: Sequence[Group]) -> str:
    """How many lanes are taken from an earlier sweep, and how many are trained."""
    trained = sum(len(cells) * len(seeds) for _, cells, seeds in groups)
    taken = count(int(np.sum(known >= 0)), "lane")
    return f"extending {earlier.name}: {taken} taken from it, {trained} to train"


def _key(grid: Grid, values: Mapping[str, Any]) -> Key:
    ignored = unread_in(grid, values)
    return tuple(None if name in ignored else value for name, value in sorted(values.items()))


def unread_in(grid: Grid, values: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a cell that are not read, with the setting that says so.

    Of several models each has rules of its own. A record of one's own may read what the model does not that it was
    made from: of it nothing is believed.
    """
    model, absent = grid.model, dict[str, str]()
    if model.choices:
        model = next(one for one in model.choices if one.name == values["model"])
        declared = {"model", *settings_of(model.Settings)}
        absent = {name: "model" for name in settings_of(grid.model.Settings) if name not in declared}
    of_model = model.Settings.UNREAD if has_its_name(model) else {}
    return unread({**DataConfig.UNREAD, **TrainingSettings.UNREAD, **of_model}, values) | absent


def points_of(grid: Grid) -> np.ndarray:
    """The number of every cell's point, as `Grid.programs` orders them, [cells]; within it cells keep their order."""
    sizes = {dim: len(labels) for dim, labels in grid.labels.items()}
    numbers = np.arange(int(np.prod(list(grid.program_dims.values()), dtype=int))).reshape(
        [size if dim in grid.program_dims else 1 for dim, size in sizes.items()]
    )
    return np.broadcast_to(numbers, tuple(sizes.values())).ravel()


def equal_lines(grid: Grid, equal: Mapping[int, int]) -> list[str]:
    """How many lanes are equal to others, by the settings that they do not read; {cell: the one that it equals}."""
    cells = [values for _, values in grid.cells()]
    reasons: Counter[str] = Counter()
    for cell, other in equal.items():
        ignored = unread_in(grid, cells[cell])
        differing = [name for name in ignored if cells[cell][name] != cells[other][name]]
        deciding = dict.fromkeys(f"{ignored[name]} {cells[cell][ignored[name]]}" for name in differing)
        verb = "does" if len(deciding) == 1 else "do"
        reasons[f"{' and '.join(differing)}, which {' and '.join(deciding)} {verb} not read"] += len(grid.seeds)
    total = len(cells) * len(grid.seeds)
    return [f"{number} of {total} lanes differ only in {reason}: trained once" for reason, number in reasons.items()]


def _lane_name(grid: Grid, cell: int, seed: int) -> str:
    index = np.unravel_index(cell, [len(labels) for labels in grid.labels.values()])
    places = dict(zip(grid.dims, index, strict=True))
    point = {name: grid.axes[name][places[dim]] for dim, names in grid.dims.items() for name in names}
    return ", ".join(f"{name} {value}" for name, value in {**point, "seed": seed}.items())

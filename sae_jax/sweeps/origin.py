"""Lanes that start from those of a finished sweep, or from a dictionary of others, instead of at random."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.data.config import DataConfig
from sae_jax.data.normalise import Normalisation
from sae_jax.models import Model
from sae_jax.settings import UserError, check_type, flag
from sae_jax.storage import results
from sae_jax.storage.atomic import as_path
from sae_jax.storage.states import load_states
from sae_jax.sweeps.dictionaries import Dictionary, is_dictionary, read
from sae_jax.sweeps.grid import Grid, make_grid
from sae_jax.sweeps.keep import need_parameters
from sae_jax.sweeps.reading import arranged, check_results, grid_of, present, stored_normalisation
from sae_jax.sweeps.study import Earlier


def origin_of(
    dataset: xr.Dataset, name: str, model: Model | None = None, states: Mapping[str, np.ndarray] | None = None
) -> Earlier:
    """A sweep to start from, from its results.

    Args:
        dataset: its results.
        name: for messages.
        model: the record, where the model is none that sae_jax knows by name.
        states: as in `Earlier`; None where they were not kept.

    Raises:
        UserError: the Dataset does not name its settings, or holds neither states nor the parameters of every lane.
    """
    grid, dataset = grid_of(dataset, model), arranged(dataset)
    if not states:
        need_parameters(dataset, flag("start_from"), of="all")
    return Earlier(dataset, grid, name, states or {})


def origin_at(run: xr.Dataset | str | Path) -> Earlier:
    """What lanes start from: a Dataset, or a folder of a run, with its lanes' states where it kept them, or of SAELens.

    Raises:
        UserError: there is no finished run and no dictionary, or as `origin_of`.
    """
    kinds = (str, os.PathLike, xr.Dataset)
    known = "a finished run's folder, a Dataset, or a SAELens folder"
    check_type("start_from", run, kinds, known, "use what sae_jax.sweep returned")
    if isinstance(run, xr.Dataset):
        check_results(run)
        return origin_of(run, "the sweep")
    folder = as_path("start_from", run, known, "use a path")
    if is_dictionary(folder):
        return _of_dictionary(read(folder), os.path.abspath(folder))
    return origin_of(results.load(folder), str(run), states=load_states(folder))


def _of_dictionary(dictionary: Dictionary, name: str) -> Earlier:
    """A dictionary of others as a sweep of one lane, on samples as they are."""
    settings = dictionary.settings
    declared = settings.architecture.parameters(settings.model)
    lanes = {key: (("seed", *declared[key].dims), value[None]) for key, value in dictionary.params.items()}
    grid = make_grid(dictionary.model, DataConfig(normalize="none"), [0], dictionary.values)
    return Earlier(xr.Dataset(lanes, {"seed": [0]}), grid, name, {}, dictionary=True)


def check_moved(before: Grid, name: str, given: Mapping[str, Any]) -> None:
    """Refuse other samples beside the targets that a sweep has, which are those of its own.

    Args:
        before: the grid of the sweep that lanes start from.
        name: of that sweep, for the message.
        given: settings beside those that it has.

    Raises:
        UserError: there are such.
    """
    targets_before = before.axes.get("targets", (before.data.targets,))
    if "dataset" not in given or "targets" in given or not any(targets_before):
        return
    datasets_before = set(before.axes.get("dataset", (before.data.dataset,)))
    values = given["dataset"] if isinstance(given["dataset"], (list, tuple)) else [given["dataset"]]
    if others := [value for value in values if DataConfig(dataset=value).dataset not in datasets_before]:
        raise UserError(
            f"cannot start from {name}: another dataset needs targets of its own: got {_listed(others)} without; "
            f"add {flag('targets')}"
        )


def lanes_of(grid: Grid, origin: Earlier) -> np.ndarray:
    """The lane of a finished sweep that each lane of a grid starts from: its number, [cells, seeds].

    It is the one with the same values of all settings that varied there, and the same seed; of a dictionary its only
    one.

    Raises:
        UserError: there is no such lane, or the model is another.
    """
    before = origin.grid
    if before.model.name != grid.model.name:
        raise UserError(
            f"cannot start from {origin.name}: the model must be {before.model.name}: got {grid.model.name}; leave "
            f"{flag('model')} out"
        )
    if origin.dictionary:
        return np.zeros((math.prod(map(len, grid.labels.values())), len(grid.seeds)), int)
    names = list(before.axes)
    places = {tuple(values[name] for name in names): cell for cell, (_, values) in enumerate(before.cells())}
    missing = [seed for seed in grid.seeds if seed not in before.seeds]
    if missing:
        raise UserError(
            f"cannot start from {origin.name}: seeds must be among its own, {_listed(before.seeds)}: got "
            f"{_listed(missing)}; name some of those"
        )
    seeds = np.asarray([before.seeds.index(seed) for seed in grid.seeds])
    lanes = []
    for _, values in grid.cells():
        point = tuple(values[name] for name in names)
        if point not in places:
            wrong = next((name for name in names if values[name] not in before.axes[name]), names[0])
            raise UserError(
                f"cannot start from {origin.name}: {wrong} must be one of those that it has, "
                f"{_listed(before.axes[wrong])}: got {values[wrong]}; name one or more of them"
            )
        lanes.append(places[point] * len(before.seeds) + seeds)
    numbers = np.asarray(lanes)
    present_lanes = present(origin.dataset)
    if present_lanes is not None and not present_lanes.transpose(*before.dims, "seed").values.ravel()[numbers].all():
        raise UserError(
            f"cannot start from {origin.name}: every lane must have been trained there: got some that were not; "
            "start from a part of it"
        )
    return numbers


def normalisation_of(origin: Earlier, lanes: np.ndarray, config: DataConfig) -> Normalisation | None:
    """What was done to the samples that lanes were trained on; None where another rule is asked for, or none is known.

    Args:
        origin: the sweep.
        lanes: numbers of its lanes, which share their samples.
        config: settings of the samples that training goes on with.
    """
    if origin.dictionary:
        return None
    number = int(lanes.ravel()[0])
    _, values = list(origin.grid.cells())[number // len(origin.grid.seeds)]
    if (values["normalize"], values["subtract_mean"]) != (config.normalize, config.subtract_mean):
        return None
    where = dict(zip((*origin.grid.dims, "seed"), places_of(origin, np.asarray(number)), strict=True))
    return stored_normalisation(origin.dataset.isel(where))


def places_of(origin: Earlier, numbers: np.ndarray) -> tuple[Any, ...]:
    """Where lanes of a sweep stand along its dimensions and seed, by their numbers."""
    return np.unravel_index(numbers, (*map(len, origin.grid.labels.values()), len(origin.grid.seeds)))


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))

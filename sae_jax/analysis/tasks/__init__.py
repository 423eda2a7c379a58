"""Trained lanes put to use: each application works on every lane of a run and adds its variables to the Dataset."""

from __future__ import annotations

import importlib
import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import PRESENT, name_of, with_presence
from sae_jax.analysis.lanes import Lanes, trained
from sae_jax.analysis.options import TASKS, TaskConfig
from sae_jax.analysis.tasks.base import ShownLane, TaskResult
from sae_jax.data import Data
from sae_jax.models import Model
from sae_jax.settings import UserError, check_type, check_whole, unknown
from sae_jax.sweeps.dataset import labels
from sae_jax.sweeps.grid import Grid
from sae_jax.sweeps.keep import need_parameters
from sae_jax.sweeps.reading import arranged, check_results, described, grid_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Every setting of a task at its default.
USUAL = TaskConfig()


class Measurement(NamedTuple):
    """What a task has measured of every lane of a sweep.

    Attributes:
        variables: the task's variables, with the coordinates that are its own; the others are the sweep's.
        figure: the task's figure.
    """

    variables: xr.Dataset
    figure: Figure


def apply(
    task: str,
    dataset: xr.Dataset,
    options: Any = USUAL,
    data: Data | None = None,
    devices: int = 0,
    model: Model | None = None,
) -> tuple[xr.Dataset, Figure]:
    """Put every lane of a sweep to a task; arguments and errors are those of `measure`.

    Returns:
        (the Dataset with the task's variables, in place of those of an earlier time; the task's figure).
    """
    measurement = measure(task, dataset, options, data, devices, model)
    return with_measurement(dataset, measurement, model), measurement.figure


def with_measurement(dataset: xr.Dataset, measurement: Measurement, model: Model | None = None) -> xr.Dataset:
    """The Dataset of a sweep with what a task has measured of it, in place of what it had measured before.

    Raises:
        UserError: the sweep has another variable of that name.
    """
    dataset = arranged(dataset)
    earlier = [name for name in dataset.variables if name in measurement.variables.variables]
    for name in earlier:
        if not _of_tasks(dataset, name):
            raise UserError(f"variables of tasks must be new to the run: got {name}, which it has; rename the task's")
    without_earlier = described(dataset, grid_of(dataset, model)).drop_vars(earlier)
    return without_earlier.merge(measurement.variables, combine_attrs="override")


def _of_tasks(dataset: xr.Dataset, name: Hashable) -> bool:
    """Whether a variable is what a task has measured, or the coordinate of a dimension of such variables alone."""
    if name not in dataset.coords:
        return dataset[name].attrs.get("kind") == "task"
    others = [one for one in dataset.data_vars.values() if one.attrs.get("kind") != "task"]
    return dataset[name].dims == (name,) and not any(name in one.dims for one in others)


def measure(
    task: str,
    dataset: xr.Dataset,
    options: Any = USUAL,
    data: Data | None = None,
    devices: int = 0,
    model: Model | None = None,
) -> Measurement:
    """Put every lane of a sweep to a task.

    Args:
        task: one of TASKS.
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        options: settings of the task: a TaskConfig, or for a plug-in's task that has Settings of its own one of those.
        data: the samples, where the sweep was given samples; None loads them again as the settings say.
        devices: how many devices to use; 0 is all.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the task is unknown, or needs what the run or its data do not have.
    """
    check_type("task", task, str, "the name of a task", f"known: {', '.join(TASKS)}")
    check_type("data", data, (Data, type(None)), "Data", "use sae_jax.as_data(samples)")
    check_whole("devices", devices, 0)
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    module = importlib.import_module(f"{__name__}.{TASKS[task]}") if isinstance(TASKS[task], str) else TASKS[task]
    Settings = getattr(module, "Settings", TaskConfig)
    options = Settings() if options is USUAL else options
    check_type("options", options, Settings, f"a {Settings.__name__}", f"use {Settings.__name__}(...) of the task")
    from matplotlib import pyplot as plt

    from sae_jax.analysis.style import drawing

    check_results(dataset)
    need_parameters(dataset, f"task {task}")
    dataset = arranged(dataset)
    grid, programs = grid_of(dataset, model), trained(dataset, data, devices, model)
    if outputs := max(lanes.data.outputs for lanes in programs):
        raise UserError(
            f"task {task} is of autoencoders, which reconstruct their samples: got transcoders of {outputs} outputs; "
            "use the measures of the run"
        )
    results = [module.measure(lanes, options) for lanes in programs]
    parts = [(lanes.point, _labelled(lanes, result)) for lanes, result in zip(programs, results, strict=True)]
    measured = side_by_side(grid, parts)
    along = {
        name: one.variable for name, one in with_presence(dataset).coords.items() if set(one.dims) <= set(measured.dims)
    }
    measured = measured.assign_coords({name: one for name, one in along.items() if name not in measured.coords})
    with drawing():
        figure = module.draw(measured, _best_lane(module.SCORE, programs, results))
    plt.close(figure)  # It stays as it is; pyplot forgets it.
    task_names = [name for name in measured.variables if name in measured.data_vars or name in results[0].coordinates]
    others = [name for name in measured.variables if name not in task_names or name == PRESENT]
    return Measurement(measured.drop_vars(others), figure)


def side_by_side(grid: Grid, programs: list[tuple[dict[str, Any], xr.Dataset]]) -> xr.Dataset:
    """Variables of all programs along the program dimensions, NaN for programs of which there are no lanes.

    Args:
        grid: the dimensions are read.
        programs: of every program its labels on the program dimensions and its Dataset.

    Returns:
        One Dataset whose dimensions are the grid's in their order, seed, and the rest.
    """
    sizes = grid.program_dims
    places = [tuple(grid.labels[dim].index(label) for dim, label in point.items()) for point, _ in programs]
    numbers = [int(np.ravel_multi_index(place, tuple(sizes.values()))) if sizes else 0 for place in places]
    joined = xr.concat(
        [dataset for _, dataset in programs],
        dim="program",
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs=_all_labels,
    )
    joined = joined.assign_coords(program=numbers)
    if len(numbers) < math.prod(sizes.values()):
        joined = joined.reindex(program=np.arange(math.prod(sizes.values())))
    apart = {
        name: ((*sizes, *one.dims[1:]), one.values.reshape((*sizes.values(), *one.shape[1:])), one.attrs)
        for name, one in joined.data_vars.items()
    }
    dataset = xr.Dataset(apart, joined.drop_vars("program").coords)
    return dataset.transpose(*grid.dims, "seed", ..., missing_dims="ignore")


def _all_labels(attributes: list[dict[str, str]], context: Any) -> dict[str, str]:
    """Labels of a variable whose programs label it differently, such as by what counts as active: all of them."""
    names = dict.fromkeys(name for labelled in attributes for name in labelled)
    return {name: " / ".join(dict.fromkeys(labelled[name] for labelled in attributes)) for name in names}


def _labelled(lanes: Lanes, result: TaskResult) -> xr.Dataset:
    """The variables of one program, over the axes that its lanes came from."""
    variables = {}
    for name, variable in result.variables.items():
        values, dims = np.asarray(variable.values), variable.dims
        if variable.per_lane:
            # What a diverged lane measures says nothing about its settings.
            values = np.where(lanes.diverged.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
            every = np.full((math.prod(lanes.shape), *values.shape[1:]), np.nan, values.dtype)
            every[lanes.places] = values
            values, dims = every.reshape(*lanes.shape, *values.shape[1:]), (*lanes.dims, *dims)
        variables[name] = (dims, values, labels(variable.label, variable.units) | {"kind": "task"})
    coordinates = {name: (name, values, labels(*text)) for name, (values, *text) in result.coordinates.items()}
    return xr.Dataset(variables, coordinates)


def _best_lane(score: str, programs: list[Lanes], results: list[TaskResult]) -> ShownLane:
    """The lane of the highest score, averaged over what the score has beside lanes."""
    scores = [np.asarray(result.variables[score].values) for result in results]
    means = [
        np.where(lanes.diverged, -np.inf, np.nan_to_num(values.reshape(len(values), -1).mean(axis=1), nan=-np.inf))
        for lanes, values in zip(programs, scores, strict=True)
    ]
    number = int(np.argmax([values.max() for values in means]))
    index, lanes = int(np.argmax(means[number])), programs[number]
    places = zip(lanes.dims, np.unravel_index(lanes.places[index], lanes.shape), strict=True)
    point = {name: lanes.labels[name][place] for name, place in places}
    arrays = {name: values[index] for name, values in results[number].figure_arrays.items()}
    return ShownLane(lanes, name_of(lanes.point | point), arrays)


__all__ = ["TASKS", "TaskConfig", "apply"]

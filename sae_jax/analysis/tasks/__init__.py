"""Trained lanes put to use: each application works on every lane of a run and adds its variables to the Dataset."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.cells import name_of
from sae_jax.analysis.figures import STYLE
from sae_jax.analysis.lanes import Lanes, grid_of, trained
from sae_jax.analysis.tasks import anomaly, denoising, inpainting, probe, retrieval, stacking
from sae_jax.analysis.tasks.base import ShownLane, TaskConfig, TaskResult
from sae_jax.data import Data
from sae_jax.models import Model
from sae_jax.settings import unknown
from sae_jax.sweeps.dataset import labels, side_by_side

# A task is a module with SCORE, `measure` and `draw`.
TASKS: dict[str, Any] = {
    "probe": probe,
    "anomaly": anomaly,
    "denoising": denoising,
    "inpainting": inpainting,
    "retrieval": retrieval,
    "stacked": stacking,
}


def apply(
    task: str,
    dataset: xr.Dataset,
    options: TaskConfig = TaskConfig(),  # noqa: B008
    data: Data | None = None,
    devices: int = 0,
    model: Model | None = None,
) -> tuple[xr.Dataset, Figure]:
    """Put every lane of a sweep to a task.

    Args:
        task: one of TASKS.
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        options: settings of the task.
        data: the samples, where the sweep was given samples; None loads them again as the settings say.
        devices: how many devices to use; 0 is all.
        model: the record, where the model is none that sae_jax knows by name.

    Returns:
        (the Dataset with the task's variables, in place of those of an earlier time; the task's figure).

    Raises:
        UserError: the task is unknown, or needs what the run or its data do not have.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    module, programs = TASKS[task], trained(dataset, data, devices, model)
    results = [module.measure(lanes, options) for lanes in programs]
    parts = [(lanes.point, _labelled(lanes, result)) for lanes, result in zip(programs, results, strict=True)]
    measured = side_by_side(grid_of(dataset, model), parts)
    with matplotlib.rc_context(STYLE):
        figure = module.draw(measured, _best_lane(module.SCORE, programs, results))
    plt.close(figure)  # It stays as it is; pyplot forgets it.
    earlier = [name for name in dataset.variables if name in measured.data_vars or name in results[0].coordinates]
    return dataset.drop_vars(earlier).merge(measured, combine_attrs="override"), figure


def _labelled(lanes: Lanes, result: TaskResult) -> xr.Dataset:
    """The variables of one program, over the axes that its lanes came from."""
    variables = {}
    for name, variable in result.variables.items():
        values, dims = np.asarray(variable.values), variable.dims
        if variable.per_lane:
            # What a diverged lane measures says nothing about its settings.
            values = np.where(lanes.diverged.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
            values, dims = values.reshape(*lanes.shape, *values.shape[1:]), (*lanes.dims, *dims)
        variables[name] = (dims, values, labels(variable.label, variable.units) | {"kind": "task"})
    coordinates = {name: (name, values, labels(*text)) for name, (values, *text) in result.coordinates.items()}
    return xr.Dataset(variables, lanes.coordinates | coordinates)


def _best_lane(score: str, programs: list[Lanes], results: list[TaskResult]) -> ShownLane:
    """The lane of the highest score, averaged over what the score has beside lanes."""
    scores = [np.asarray(result.variables[score].values) for result in results]
    means = [
        np.where(lanes.diverged, -np.inf, np.nan_to_num(values.reshape(len(values), -1).mean(axis=1), nan=-np.inf))
        for lanes, values in zip(programs, scores, strict=True)
    ]
    number = int(np.argmax([values.max() for values in means]))
    index, lanes = int(np.argmax(means[number])), programs[number]
    places = zip(lanes.dims, np.unravel_index(index, lanes.shape), strict=True)
    point = {name: lanes.coordinates[name][1][place] for name, place in places}
    arrays = {name: values[index] for name, values in results[number].figure_arrays.items()}
    return ShownLane(lanes, name_of(lanes.point | point), arrays)


__all__ = ["TASKS", "TaskConfig", "apply"]

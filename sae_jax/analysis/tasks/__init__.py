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
from sae_jax.analysis.tasks.base import Best, Findings, TaskConfig
from sae_jax.data import Data
from sae_jax.settings import unknown
from sae_jax.sweeps.dataset import labels, side_by_side

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
) -> tuple[xr.Dataset, Figure]:
    """Put every lane of a sweep to a task.

    Args:
        task: one of TASKS.
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        options: settings of the task.
        data: the samples, where the sweep was given samples; None loads them again as the settings say.
        devices: how many devices to use; 0 is all.

    Returns:
        (the Dataset with the task's variables, in place of those of an earlier time; the task's figure).

    Raises:
        UserError: the task is unknown, or needs what the run or its data do not have.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    module, programs = TASKS[task], trained(dataset, data, devices)
    findings = [module.measure(lanes, options) for lanes in programs]
    parts = [_labelled(lanes, found) for lanes, found in zip(programs, findings, strict=True)]
    found = side_by_side(grid_of(dataset), [(lanes.point, part) for lanes, part in zip(programs, parts, strict=True)])
    found = found.assign_attrs(axes=dataset.attrs["axes"])
    best = _best(module.SCORE, programs, findings)
    with matplotlib.rc_context(STYLE):
        figure = module.draw(found, best)
    plt.close(figure)  # It stays as it is; pyplot forgets it.
    earlier = [name for name in dataset.variables if name in found.data_vars or name in findings[0].coordinates]
    return dataset.drop_vars(earlier).merge(found, combine_attrs="override"), figure


def _labelled(lanes: Lanes, findings: Findings) -> xr.Dataset:
    """The variables of one program, over the axes that its lanes came from."""
    variables = {}
    for name, found in findings.variables.items():
        values = np.asarray(found.values)
        if found.of_lanes:
            # What a diverged lane measures says nothing about its settings.
            values = np.where(lanes.diverged.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
            values = values.reshape(*lanes.shape, *values.shape[1:])
        dims = (*lanes.dims, *found.dims) if found.of_lanes else found.dims
        variables[name] = (dims, values, labels(found.label, found.units) | {"kind": "task"})
    coordinates = {name: (name, values, labels(*text)) for name, (values, *text) in findings.coordinates.items()}
    return xr.Dataset(variables, lanes.coordinates | coordinates)


def _best(score: str, programs: list[Lanes], findings: list[Findings]) -> Best:
    """The lane of the highest score, averaged over what the score has beside lanes."""
    scores = [np.asarray(found.variables[score].values) for found in findings]
    means = [
        np.where(lanes.diverged, -np.inf, np.nan_to_num(values.reshape(len(values), -1).mean(axis=1), nan=-np.inf))
        for lanes, values in zip(programs, scores, strict=True)
    ]
    which = int(np.argmax([values.max() for values in means]))
    index, lanes = int(np.argmax(means[which])), programs[which]
    place = np.unravel_index(index, lanes.shape)
    point = {name: lanes.coordinates[name][1][at] for name, at in zip(lanes.dims, place, strict=True)}
    private = {name: values[index] for name, values in findings[which].private.items()}
    return Best(lanes, name_of(lanes.point | point), private)


__all__ = ["TASKS", "TaskConfig", "apply"]

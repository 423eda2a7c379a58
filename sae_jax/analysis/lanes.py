"""The trained lanes of a results Dataset, program by program, ready to be put to use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from sae_jax import data as sources
from sae_jax.data import Data
from sae_jax.data.config import DataConfig
from sae_jax.models import Model
from sae_jax.models.base import Params
from sae_jax.settings import UserError
from sae_jax.storage.description import axes_of
from sae_jax.sweeps.dataset import lane_coordinates
from sae_jax.sweeps.devices import choose_devices
from sae_jax.sweeps.grid import Grid, make_grid
from sae_jax.sweeps.mapping import map_lanes
from sae_jax.sweeps.plan import devices_that_fit
from sae_jax.training.config import LaneSettings


class Lane(NamedTuple):
    """One trained autoencoder.

    Attributes:
        params: parameters.
        settings: everything that its encoder and decoder need; swept settings are scalars.
        seed: its seed.
    """

    params: Params
    settings: LaneSettings
    seed: Any


class Lanes(NamedTuple):
    """All trained lanes of one compiled program.

    Attributes:
        point: values on the program axes.
        data: the samples that the lanes were trained on.
        lanes: a Lane whose leaves have a leading axis over lanes, the seeds fastest.
        coordinates: labelled values of the axes that the lanes came from: the lane axes, then seed.
        diverged: which lanes turned non-finite, [lanes].
        devices: devices to spread over.
        shared: what does not depend on the lanes, computed once for all programs on the same data.
    """

    point: dict[str, Any]
    data: Data
    lanes: Lane
    coordinates: dict[str, tuple[str, np.ndarray, dict[str, str]]]
    diverged: np.ndarray
    devices: list[jax.Device]
    shared: dict[str, Any]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.coordinates)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for _, values, _ in self.coordinates.values())

    def map(self, function: Callable[..., Any], *shared: Any) -> Any:
        """f(lane, *shared) for every lane, as arrays [lanes, ...]; see `parallel.map_lanes`."""
        return map_lanes(function, self.devices, shared, self.lanes)

    def baseline(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments) as NumPy arrays, of the samples themselves: computed once for all programs on the same data."""
        if name not in self.shared:
            self.shared[name] = jax.device_get(jax.jit(function)(*arguments))
        return self.shared[name]


def grid_of(dataset: xr.Dataset, model: Model | None = None) -> Grid:
    """The grid that a Dataset was trained over, from its attribute config.

    Args:
        dataset: of a sweep.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the Dataset holds no such settings.
    """
    settings = _recorded(dataset, "config", dict)
    name = settings.pop("model", "classic")  # Before models had names there was one.
    if not isinstance(settings.get("seeds"), list):
        raise UserError("results must name the seeds they were trained with: got none; train them again")
    seeds, axes = settings.pop("seeds"), axes_of(dataset)
    # The axes first, in the order of the dimensions: JSON keeps settings in another order.
    ordered = {name: settings[name] for name in axes if name in settings} | settings
    grid = make_grid(model or name, DataConfig(), seeds, ordered)
    lanes = [*axes, "seed"]
    values = {name: dataset[name].values.tolist() if name in dataset.coords else [] for name in lanes}
    if values != {name: list(values) for name, values in {**grid.axes, "seed": grid.seeds}.items()}:
        raise UserError(
            f"results must have the axes of their own settings, {', '.join([*grid.axes, 'seed'])}: "
            f"got {', '.join(lanes)}, or other values along them; train them again"
        )
    units = max(program.model.d_hidden for _, program, _ in grid.programs())
    if dataset.sizes.get("unit", 0) != units:
        raise UserError(
            f"results must have as many units as their own settings, {units}: got {dataset.sizes.get('unit', 0)}; "
            "train them again"
        )
    return grid


def trained(dataset: xr.Dataset, data: Data | None = None, devices: int = 0, model: Model | None = None) -> list[Lanes]:
    """The lanes of a results Dataset, program by program, with the data that they were trained on.

    Args:
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        data: the samples, where the sweep was given samples and not a DataConfig; None loads them again.
        devices: how many devices to use; 0 is all.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the Dataset does not name its settings or is not what they say, or its data cannot be loaded or are
            not those it was trained on.
    """
    grid, chosen = grid_of(dataset, model), choose_devices(devices)
    expected = _recorded(dataset, "data", list)
    seeds, shape = np.asarray(grid.seeds, np.uint32), grid.shape
    loaded: dict[DataConfig, tuple[Data, dict[str, Any]]] = {}
    programs = []
    for i, (point, settings, data_config) in enumerate(grid.programs()):
        if data_config not in loaded:
            loaded[data_config] = data or sources.load(data_config), {}
        samples, shared = loaded[data_config]
        if i >= len(expected) or not _alike(samples.summary, expected[i]):
            raise UserError(
                f"{samples.config.dataset} must hold the samples that the run was trained on: it has changed since; "
                "train again"
            )
        part, lane_dims = dataset.sel(point), (*grid.lane_axes, "seed")
        if dataset.sizes.get("input", 0) < samples.train.shape[1]:
            raise UserError(
                f"results must have as many inputs as their samples, {samples.train.shape[1]}: "
                f"got {dataset.sizes.get('input', 0)}; train them again"
            )
        params = _params(part, lane_dims, settings, samples.train.shape[1])
        flat = {name: values.reshape(-1, *values.shape[len(shape) :]) for name, values in params.items()}
        diverged = _variable(part, "diverged_at", lane_dims).values.ravel() >= 0
        _check_finite(flat, diverged)
        # A lane's codes of all samples, and as much again while they are worked on.
        lane_bytes = (
            8 * (len(samples.train) + len(samples.heldout)) * (samples.train.shape[1] + settings.model.d_hidden)
        )
        used = devices_that_fit(chosen, samples.train.nbytes + samples.heldout.nbytes, lane_bytes)
        # The seeds are the fastest axis of the lanes.
        repeated = jax.tree.map(lambda leaf: np.repeat(leaf, len(seeds)), settings)
        lanes = Lane(flat, repeated, np.tile(seeds, math.prod(shape[:-1])))
        programs.append(Lanes(point, samples, lanes, lane_coordinates(grid), diverged, used, shared))
    return programs


def _recorded(dataset: xr.Dataset, name: str, kind: type) -> Any:
    """An attribute of a Dataset that was written as JSON."""
    try:
        value = json.loads(dataset.attrs[name])
    except (KeyError, TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UserError(
            f"results must name the settings they were trained with: got an attribute {name} that is not readable; "
            "train them again"
        )
    return value


def _alike(summary: list[float], expected: Any) -> bool:
    """Whether two summaries of samples agree, but for what rounding differs between machines."""
    numbers = isinstance(expected, list) and all(isinstance(one, float) for one in expected)
    return numbers and len(expected) == len(summary) and bool(np.allclose(summary, expected, rtol=1e-4, atol=1e-6))


def _variable(dataset: xr.Dataset, name: str, dims: tuple[str, ...]) -> xr.DataArray:
    """A variable that is needed, over the dimensions that are needed."""
    if name not in dataset.data_vars or dataset[name].dims != dims:
        got = ", ".join(map(str, dataset[name].dims)) or "a single number" if name in dataset.data_vars else "none"
        raise UserError(f"results must hold {name} over {', '.join(dims)}: got {got}; train them again")
    return dataset[name]


def _params(dataset: xr.Dataset, lane_dims: tuple[str, ...], settings: LaneSettings, d_in: int) -> dict[str, Any]:
    """Parameters without the NaN that fills up where other programs have more units or inputs."""
    sizes = {"unit": slice(settings.model.d_hidden), "input": slice(d_in)}
    params = {}
    for name, parameter in settings.architecture.parameters(settings.model).items():
        part = _variable(dataset, name, (*lane_dims, *parameter.dims))
        rows = {dim: rows for dim, rows in sizes.items() if dim in part.dims}
        params[name] = part.isel(rows).values.astype(np.float32)
    return params


def _check_finite(params: dict[str, Any], diverged: np.ndarray) -> None:
    """Refuse parameters [lanes, ...] that are no numbers in a lane that is not known to have diverged."""
    for name, values in params.items():
        wrong = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if np.any(wrong & ~diverged):
            raise UserError(
                f"parameters of lanes that did not diverge must be finite: got NaN or infinity in {name}; "
                "train them again, or with the settings that these parameters have"
            )

"""The trained lanes of a results Dataset, program by program, ready to be put to use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from sae_jax import data as sources
from sae_jax.config import Config, DataConfig
from sae_jax.data import Data
from sae_jax.grids import Grid, make_grid
from sae_jax.parallel import choose_devices, map_lanes
from sae_jax.results import PARAMETERS, lane_coordinates
from sae_jax.settings import UserError
from sae_jax.types import Hyperparameters, Params


class Lane(NamedTuple):
    """One trained autoencoder.

    Attributes:
        params: parameter pytree.
        hyper: its hyperparameters, scalars.
        seed: its seed.
    """

    params: Params
    hyper: Hyperparameters
    seed: Any


class Lanes(NamedTuple):
    """All trained lanes of one compiled program.

    Attributes:
        point: values on the program axes.
        config, data: static settings, and the samples that the lanes were trained on.
        lanes: a Lane whose leaves have a leading axis over lanes, the seeds fastest.
        coordinates: labelled values of the axes that the lanes came from: the lane axes, then seed.
        devices: devices to spread over.
    """

    point: dict[str, Any]
    config: Config
    data: Data
    lanes: Lane
    coordinates: dict[str, tuple[str, np.ndarray, dict[str, str]]]
    devices: list[jax.Device]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.coordinates)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for _, values, _ in self.coordinates.values())

    def map(self, function: Callable[..., Any], *shared: Any) -> Any:
        """f(lane, *shared) for every lane, as arrays [lanes, ...]; see `parallel.map_lanes`."""
        return map_lanes(function, self.devices, shared, self.lanes)

    def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), compiled, on one of the lanes' devices, as NumPy arrays: the lanes' baseline."""
        return jax.device_get(jax.jit(function)(*arguments))

    def one(self, index: int) -> Lane:
        """The lane at a position, without its leading axis."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.lanes)


def grid_of(dataset: xr.Dataset) -> Grid:
    """The grid that a Dataset was trained over, from its attribute config.

    Raises:
        UserError: the Dataset holds no such settings.
    """
    try:
        recorded = json.loads(dataset.attrs["config"])
        seeds = [int(seed) for seed in recorded.pop("seeds")]
        axes = [str(dim) for dim in dataset["eval_reconstruction"].dims if dim in recorded]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"results must name the settings they were trained with: {error!r}; train them again") from None
    # The axes first, in the order of the dimensions: JSON keeps settings in another order.
    ordered = {name: recorded[name] for name in [*axes, *(name for name in recorded if name not in axes)]}
    return make_grid(Config(), DataConfig(), seeds, ordered)


def trained(dataset: xr.Dataset, data: Data | None = None, devices: int | None = None) -> list[Lanes]:
    """The lanes of a results Dataset, program by program, with the data that they were trained on.

    Args:
        dataset: what `sae_jax.sweep` returned or `sae_jax.results.load` read.
        data: the samples, where the sweep was given samples and not a DataConfig; None loads them again.
        devices: how many devices to use; None is all.

    Raises:
        UserError: the Dataset does not name its settings, or its data cannot be loaded.
    """
    grid, chosen = grid_of(dataset), choose_devices(devices)
    shape, hyper = grid.shape, grid.cells()
    # The seeds are the fastest axis of the lanes.
    repeated = jax.tree.map(lambda leaf: np.repeat(leaf, len(grid.seeds)), hyper)
    seeds = np.tile(np.asarray(grid.seeds, np.uint32), len(hyper.rho))
    loaded: dict[DataConfig, Data] = {}
    programs = []
    for point, config, data_config in grid.programs():
        if data_config not in loaded:
            loaded[data_config] = data or sources.load(data_config)
        samples = loaded[data_config]
        params = _params(dataset.sel(point), config, samples.train.shape[1])
        if params["decoder_bias"].shape[:-1] != shape:
            raise UserError(f"results must have the shape of their own settings {shape}: got {dict(dataset.sizes)}")
        flat = {name: values.reshape(-1, *values.shape[len(shape) :]) for name, values in params.items()}
        programs.append(Lanes(point, config, samples, Lane(flat, repeated, seeds), lane_coordinates(grid), chosen))
    return programs


def _params(dataset: xr.Dataset, config: Config, d_in: int) -> dict[str, Any]:
    """Parameters without the NaN that fills up where other programs have more units or inputs."""
    names = [name for name in PARAMETERS if not (config.tied and name == "decoder_weight")]
    sizes = {"unit": slice(config.d_hidden), "input": slice(d_in)}
    parts = {name: dataset[name] for name in names}
    return {
        name: part.isel({dim: rows for dim, rows in sizes.items() if dim in part.dims}).values.astype(np.float32)
        for name, part in parts.items()
    }

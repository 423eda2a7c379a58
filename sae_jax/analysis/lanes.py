"""The trained lanes of a results Dataset, program by program, ready to be put to use."""

from __future__ import annotations

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
from sae_jax.storage.description import names_of_kind
from sae_jax.sweeps.devices import choose_devices
from sae_jax.sweeps.keep import with_parameters
from sae_jax.sweeps.mapping import map_lanes
from sae_jax.sweeps.plan import devices_that_fit
from sae_jax.sweeps.reading import alike, arranged, grid_of, stored_normalisation, summaries
from sae_jax.training.config import LaneSettings, lane_at


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
        point: its labels on the program dimensions.
        data: the samples that the lanes were trained on.
        lanes: a Lane whose leaves have a leading axis over lanes, the seeds fastest.
        labels: those on the dimensions that the lanes came from: the lane dimensions, then seed.
        places: where the lanes stand along these, flattened, [lanes]; lanes that nobody trained are not among them.
        diverged: which lanes turned non-finite, [lanes].
        devices: devices to spread over.
        shared: what does not depend on the lanes, computed once for all programs on the same data.
    """

    point: dict[str, Any]
    data: Data
    lanes: Lane
    labels: dict[str, tuple[Any, ...]]
    places: np.ndarray
    diverged: np.ndarray
    devices: list[jax.Device]
    shared: dict[str, Any]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.labels.values()))

    def map(self, function: Callable[..., Any], *shared: Any) -> Any:
        """f(lane, *shared) for every lane, as arrays [lanes, ...]; see `parallel.map_lanes`."""
        return map_lanes(function, self.devices, shared, self.lanes)

    def baseline(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments) as NumPy arrays, of the samples themselves: computed once for all programs on the same data."""
        if name not in self.shared:
            self.shared[name] = jax.device_get(jax.jit(function)(*arguments))
        return self.shared[name]


def trained(dataset: xr.Dataset, data: Data | None = None, devices: int = 0, model: Model | None = None) -> list[Lanes]:
    """The lanes of a results Dataset, program by program, with the data that they were trained on.

    Args:
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        data: the samples, where the sweep was given samples and not a DataConfig; None loads them again.
        devices: how many devices to use; 0 is all.
        model: the record, where the model is none that sae_jax knows by name.

    Returns:
        The lanes whose parameters are there: of the best seed of every cell alone, where no others were kept; of a
        union with a run that kept none, the others'.

    Raises:
        UserError: the Dataset does not name its settings or is not what they say, or its data cannot be loaded or are
            not those it was trained on.
    """
    dataset, chosen = arranged(dataset), choose_devices(devices)
    grid, has_parameters = grid_of(dataset, model), with_parameters(dataset)
    shape, lane_dims = grid.shape, (*grid.lane_dims, "seed")
    labels = {dim: grid.labels[dim] for dim in grid.lane_dims} | {"seed": grid.seeds}
    # The seeds are the fastest axis of the lanes.
    seeds = np.tile(np.asarray(grid.seeds, np.uint32), math.prod(shape[:-1]))
    loaded: dict[DataConfig, tuple[Data, dict[str, Any]]] = {}
    programs = []
    for i, (point, settings, data_config) in enumerate(grid.programs()):
        where = {dim: grid.labels[dim].index(label) for dim, label in point.items()}
        part = dataset.isel(where)
        places = np.arange(seeds.size) if has_parameters is None else np.flatnonzero(has_parameters.isel(where).values)
        if not places.size:
            continue
        if data_config not in loaded:
            loaded[data_config] = data or sources.load(data_config, stored_normalisation(part)), {}
        samples, shared = loaded[data_config]
        expected = summaries(part, i)
        if not expected or not all(alike(samples.summary, one) for one in expected):
            raise UserError(
                f"{samples.config.dataset} must hold the samples that the run was trained on: it has changed since; "
                "train again"
            )
        width = samples.train.shape[1] - samples.outputs
        if dataset.sizes.get("input", 0) < width:
            raise UserError(
                f"results must have as many inputs as their samples, {width}: "
                f"got {dataset.sizes.get('input', 0)}; train them again"
            )
        diverged = _variable(part, "diverged_at", lane_dims).values.ravel()[places] >= 0
        # Where the best seed's alone were kept, a cell's lanes have one place among the parameters.
        every_seed = any("seed" in part[name].dims for name in names_of_kind(part, "parameter"))
        over = lane_dims if every_seed else lane_dims[:-1]
        params = _params(part, over, settings, width)
        rows = places if every_seed else places // len(grid.seeds)
        flat = {name: values.reshape(-1, *values.shape[len(over) :])[rows] for name, values in params.items()}
        _check_finite(flat, diverged)
        # A lane's codes of all samples, and as much again while they are worked on.
        lane_bytes = (
            8 * (len(samples.train) + len(samples.heldout)) * (samples.train.shape[1] + settings.model.d_hidden)
        )
        used = devices_that_fit(chosen, samples.train.nbytes + samples.heldout.nbytes, lane_bytes)
        cells = lane_at(settings, places // len(grid.seeds))
        programs.append(Lanes(point, samples, Lane(flat, cells, seeds[places]), labels, places, diverged, used, shared))
    if not programs:
        raise UserError("results must hold a lane: got a part of them that nobody trained; select another")
    return programs


def _variable(dataset: xr.Dataset, name: str, dims: tuple[str, ...]) -> xr.DataArray:
    """A variable that is needed, over the dimensions that are needed."""
    if name not in dataset.data_vars or dataset[name].dims != dims:
        got = ", ".join(map(str, dataset[name].dims)) or "a single number" if name in dataset.data_vars else "none"
        raise UserError(f"results must hold {name} over {', '.join(dims)}: got {got}; train them again")
    return dataset[name]


def _params(dataset: xr.Dataset, lane_dims: tuple[str, ...], settings: LaneSettings, d_in: int) -> dict[str, Any]:
    """Parameters without the NaN that fills up where other programs have more units or inputs."""
    outputs = settings.architecture.outputs(settings.model)
    sizes = {"unit": slice(settings.model.d_hidden), "input": slice(d_in), "target": slice(outputs)}
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

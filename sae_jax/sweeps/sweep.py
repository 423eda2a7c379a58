"""The main job: every combination of settings, for every seed, as one labelled array."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from sae_jax import data as sources
from sae_jax.data import Data, DataConfig, as_data
from sae_jax.models import Model
from sae_jax.settings import UserError, as_json, settings_of
from sae_jax.storage.arrays import Opener, in_memory
from sae_jax.sweeps import processes
from sae_jax.sweeps.chunk import place_lanes, run_lanes
from sae_jax.sweeps.dataset import Frame, put, to_dataset
from sae_jax.sweeps.devices import choose_devices, reserve_cpu_devices
from sae_jax.sweeps.grid import Grid, make_grid
from sae_jax.sweeps.observers import Observer, Observers
from sae_jax.sweeps.plan import Engine, count, repacked
from sae_jax.sweeps.program import Program, plan_lanes
from sae_jax.sweeps.recovery import Recovery
from sae_jax.training.config import LaneSettings
from sae_jax.training.optimizers import OPTIMIZERS


class Study(NamedTuple):
    """A sweep whose input has been checked: nothing but the arithmetic is left to do."""

    grid: Grid
    programs: list[Program]
    devices: list[jax.Device]


def sweep(
    data: Data | np.ndarray | DataConfig = DataConfig(),  # noqa: B008
    model: Model | str = "classic",
    *,
    seeds: int | Sequence[int] = 1,
    devices: int = 0,
    data_parallel: int = 1,
    lanes_per_chunk: int = 0,
    cells_per_block: int = 0,
    blocks: str = "auto",
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> xr.Dataset:
    """Train a grid of autoencoders, every cell with every seed, and measure them on held-out data.

    Args:
        data: samples [samples, features] or Data; or a DataConfig, whose fields may then be settings too.
        model: name of the model, or a record of your own.
        seeds: a number N for seeds 0..N-1, or the seeds themselves.
        devices: how many devices to use; 0 is all (on a CPU, one per core).
        data_parallel: how many devices split every batch between them; the rest of the mesh holds other lanes.
        lanes_per_chunk: the most lanes trained at once; 0 is chosen from memory.
        cells_per_block: cells of one seed that are stepped as one batch; 0 is chosen from the grid and the devices.
        blocks: how a device runs its blocks, in_turn or in_parallel; auto is in_turn on a CPU.
        observers: receive lines, progress and the points of the curves while lanes are trained; see `Observer`.
        settings: any setting of the model, the training or the data: a value, or a sequence of values for an axis.

    Returns:
        A Dataset whose dimensions are the settings given as sequences, seed, and step, unit or input. It holds the
        curves, the held-out measures and the parameters of every lane; its attribute config holds every setting.
        Where lanes differ in their number of units, inputs or steps, the shorter ones are filled up with NaN.

    Raises:
        UserError: a setting or the data break a rule.
    """
    engine = Engine(
        devices=devices,
        data_parallel=data_parallel,
        lanes_per_chunk=lanes_per_chunk,
        cells_per_block=cells_per_block,
        blocks=blocks,
    )
    reserve_cpu_devices(engine.devices)
    observer = Observers(observers if processes.leads() else ())
    study = prepare(data, model, seeds=seeds, engine=engine, observer=observer, **settings)
    return train(study, observer, in_memory())


def prepare(
    data: Data | np.ndarray | DataConfig,
    model: Model | str = "classic",
    *,
    seeds: int | Sequence[int],
    engine: Engine,
    observer: Observer,
    **settings: Any,
) -> Study:
    """Check everything that `sweep` was given, load the data and plan the lanes; arguments and errors are its own."""
    ready = None if isinstance(data, DataConfig) else data if isinstance(data, Data) else as_data(data)
    of_data = sorted(set(settings) & set(settings_of(DataConfig)))
    if ready is not None and of_data:
        raise UserError(
            f"{of_data[0]} is a setting of the data: got it beside samples; pass a DataConfig instead of them"
        )
    source = data if isinstance(data, DataConfig) else ready.config if ready else DataConfig()
    grid = make_grid(model, source, seeds, settings)
    processes.agree("load the data", "command line", [grid.as_json(), list(grid.axes), as_json(engine)])
    available = choose_devices(engine.devices)
    check_split(grid, engine, len(available))
    # A device without a lane of its own would train a filler.
    if not processes.started():
        available = available[: int(np.prod(grid.shape)) * engine.data_parallel]
    loaded: dict[DataConfig, Data] = {}
    programs = []
    for point, lanes, data_config in grid.programs():
        if data_config not in loaded:
            loaded[data_config] = ready or sources.load(data_config)
            observer.line(f"data: {loaded[data_config].description}")
        samples = loaded[data_config]
        processes.agree("load the data", "samples", samples.summary)
        check_data(lanes, samples)
        programs.append(Program(point, lanes, samples, plan_lanes(lanes, samples, grid.seeds, available, engine)))
    return Study(grid, programs, available)


def packing(study: Study) -> list[tuple[int, int]]:
    """How each program's lanes are packed: (cells_per_block, blocks_per_group); results depend on it in their bits."""
    return [(program.plan.cells_per_block, program.plan.blocks_per_group) for program in study.programs]


def packed_as(study: Study, sizes: Sequence[Sequence[int]]) -> Study:
    """The same study with its lanes packed as `packing` said before."""
    if len(sizes) != len(study.programs):
        raise UserError(
            f"cannot resume: the run has {count(len(sizes), 'program')}, this sweep has {len(study.programs)}; "
            "choose another --name"
        )
    programs = [
        program._replace(plan=repacked(program.plan, *size))
        for program, size in zip(study.programs, sizes, strict=True)
    ]
    return study._replace(programs=programs)


def train(study: Study, observer: Observer, opened: Opener, recovery: Recovery | None = None) -> xr.Dataset:
    """Train and measure every lane of a study, one program after another.

    Args:
        study: what to train.
        observer: receives the plan, the progress and the points.
        opened: where the arrays of all lanes are held; see `arrays`.
        recovery: saves what is trained; None holds it in memory.

    Returns:
        What `sweep` does.

    Raises:
        Interrupted: the recovery was asked to end.
        UserError: a checkpoint cannot be written or read, or memory does not suffice.
    """
    frame = Frame(study.grid, study.programs, opened)
    for number, program in enumerate(study.programs):
        where = "".join(f"{name} {value}, " for name, value in program.point.items())
        observer.line(f"plan: {where}{program.plan}")
        lanes = place_lanes(number, study.grid, program, study.devices)
        run_lanes(lanes, program.plan, functools.partial(put, frame, program), observer, recovery)
    return to_dataset(frame)


def check_split(grid: Grid, engine: Engine, devices: int) -> None:
    """Refuse batches that cannot be split evenly over the devices.

    Raises:
        UserError: there are some, or devices would be left over, or one batch of all samples is to be split.
    """
    parts = engine.data_parallel
    if devices % parts:
        raise UserError(
            f"devices must be a multiple of data_parallel: got {devices} and {parts}; "
            f"use a smaller data_parallel, or devices {-(-devices // parts) * parts}"
        )
    for _, lanes, _ in grid.programs():
        training = lanes.training
        if OPTIMIZERS[training.optimizer].full_batch and parts > 1:
            raise UserError(
                f"data_parallel must be 1 for optimizer {training.optimizer}, whose line search takes the whole batch "
                f"on one device: got {parts}; use adam or sgd"
            )
        if training.batch_size % parts:
            raise UserError(
                f"batch_size must be a multiple of data_parallel: got {training.batch_size} and {parts}; "
                f"use batch_size {-(-training.batch_size // parts) * parts}"
            )


def check_data(settings: LaneSettings, data: Data) -> None:
    """Refuse settings that cannot work with the data, before anything is trained.

    Raises:
        UserError: a batch is larger than the data, an optimizer of all samples is given a stream of them, the model
            cannot reach the values, or there is nothing to explain.
    """
    training = settings.training
    full_batch = OPTIMIZERS[training.optimizer].full_batch
    if full_batch and data.stream is not None:
        raise UserError(
            f"optimizer {training.optimizer} takes all samples at every step: got a stream of batches; use adam or sgd"
        )
    if training.batch_size > len(data.train) and data.stream is None and not full_batch:
        raise UserError(
            f"batch_size must be at most the number of training samples: got {training.batch_size} of "
            f"{len(data.train)}; use {len(data.train)} or less"
        )
    low = min(float(split.min()) for split in (data.train, data.heldout))
    high = max(float(split.max()) for split in (data.train, data.heldout))
    settings.architecture.check_data(settings.model, low, high)
    # Below, the squares of the differences are 0 in single precision.
    if not np.max(np.ptp(data.heldout.astype(float), axis=0)) ** 2 > np.finfo(np.float32).tiny:
        raise UserError(
            f"held-out samples must differ, or there is no variance to explain: got {len(data.heldout)} alike; "
            "use a larger heldout"
        )

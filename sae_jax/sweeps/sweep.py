"""The main job: every combination of settings, for every seed, as one labelled array."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.data import Data, DataConfig
from sae_jax.models import Model
from sae_jax.settings import SweepWarning, settings_of
from sae_jax.storage.arrays import Opener, in_memory
from sae_jax.storage.checkpoints import Arrays
from sae_jax.sweeps import processes
from sae_jax.sweeps.chunks import run_lanes
from sae_jax.sweeps.consistency import put_consistency
from sae_jax.sweeps.dataset import copy_equal, put, to_dataset
from sae_jax.sweeps.devices import idle_cores, reserve_cpu_devices
from sae_jax.sweeps.lane_warnings import warnings_of
from sae_jax.sweeps.observers import Observer, Observers, listening
from sae_jax.sweeps.origin import check_moved, origin_at
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import NORMALISATION_SETTINGS, in_single_precision, prepare
from sae_jax.sweeps.program_lanes import place_lanes
from sae_jax.sweeps.reading import settings_beside
from sae_jax.sweeps.recovery import Recovery
from sae_jax.sweeps.split import STARTED_FROM, fill
from sae_jax.sweeps.start import put_states
from sae_jax.sweeps.study import Earlier, Study
from sae_jax.sweeps.terminal import shown
from sae_jax.sweeps.truth import truth_values

# A function step -> batch, or a Grain dataset.
Batches = Callable[[int], Any] | Iterable[Any]


def sweep(
    data: Data | np.ndarray | DataConfig | Batches = DataConfig(),  # noqa: B008
    model: Model | str | Sequence[Model | str] = "classic",
    *,
    seeds: int | Sequence[int] = 1,
    zip: Sequence[str] = (),
    devices: int = 0,
    data_parallel: int = 1,
    unit_parallel: int = 1,
    lanes_per_chunk: int = 0,
    cells_per_block: int = 0,
    blocks: str = "auto",
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
    start_from: xr.Dataset | str | Path | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Train a grid of autoencoders, every cell with every seed, and measure them on held-out data.

    Args:
        data: samples [samples, features], whose normalisation and held-out share may then be settings too; or Data; or
            a DataConfig, whose fields may all be; or a function step -> batch, or a Grain dataset, as in `as_stream`.
        model: name of the model, or a record of your own; several are an axis. See `sae_jax.models.model_of`.
        seeds: a number N for seeds 0..N-1, or the seeds themselves.
        zip: settings of as many values, which are paired along one dimension instead of crossed.
        devices: how many devices to use; 0 is all (on a CPU, one per core).
        data_parallel: how many devices split every batch between them; the rest of the mesh holds other lanes.
        unit_parallel: how many devices split the units of every lane between them, its optimizer's state too.
        lanes_per_chunk: the most lanes trained at once; 0 is chosen from memory.
        cells_per_block: cells of one seed that are stepped as one batch; 0 is chosen from the grid and the devices.
        blocks: how a device runs its blocks, in_turn or in_parallel; auto is in_turn on a CPU.
        observers: receive lines, progress and the points of the curves while lanes are trained; see `Observer`.
        progress: whether to print the plan and show how lanes stand; None does at a terminal and in a notebook.
        start_from: a finished sweep, as a Dataset or a run's folder, whose lanes of the same values and seeds are
            trained on. The model, and all settings that are not given, are its own, and samples are normalised as
            there. Steps go on where its folder has the states of its lanes. Or a SAELens folder, from which lanes of
            every seed start, on samples as they are unless a rule is given. With steps 0 it is measured alone. None
            starts at random.
        settings: any setting of the model, the training or the data: a value, or a sequence of values for an axis.

    Returns:
        A Dataset whose dimensions are the settings given as sequences, seed, and step, unit or input. It holds the
        curves, the held-out measures and the parameters of every lane; every setting is one of its coordinates.
        Where lanes differ in their number of units, inputs or steps, the shorter ones are filled up with NaN.

    Raises:
        UserError: a setting or the data break a rule.

    Warns:
        SweepWarning: lanes went wrong, or cores are idle.
    """
    engine = Engine(
        devices=devices,
        data_parallel=data_parallel,
        unit_parallel=unit_parallel,
        lanes_per_chunk=lanes_per_chunk,
        cells_per_block=cells_per_block,
        blocks=blocks,
    )
    reserve_cpu_devices(engine.devices)
    idle = "" if engine.devices else idle_cores()
    if idle:
        warnings.warn(idle, SweepWarning, stacklevel=2)
    origin = None if start_from is None else origin_at(start_from)
    if origin:
        model, settings, zip = origin.grid.model, *_beside(origin, settings, zip, data)
    with shown(progress if processes.leads() else False) as display:
        everyone = [*listening(observers), *([display] if display else [])]
        observer = Observers(everyone if processes.leads() else ())
        try:
            study = prepare(
                data, model, seeds=seeds, zip=zip, engine=engine, observer=observer, origin=origin, **settings
            )
            for line in dict.fromkeys(point.data.warning for point in study.points if not display):
                if line:
                    warnings.warn(line, SweepWarning, stacklevel=2)
            watched = any(processes.gather("train", lambda: bool(everyone)))
            dataset = train(study, observer, in_memory(), watched=watched)
        finally:
            observer.close()
    for line in warnings_of(dataset) if processes.leads() else []:
        warnings.warn(line.removeprefix("warning: "), SweepWarning, stacklevel=2)
    return dataset


def _beside(
    origin: Earlier, settings: Mapping[str, Any], zip: Sequence[str], data: Data | np.ndarray | DataConfig | Batches
) -> tuple[dict[str, Any], Sequence[str]]:
    """Settings and what they pair beside those of an earlier grid, as far as the data have such settings."""
    check_moved(origin.grid, origin.name, settings)
    every = settings_beside(origin.grid, settings, zip or None)
    paired = every.pop("zip")
    of_arrays = () if isinstance(data, Data) else NORMALISATION_SETTINGS
    read = tuple(settings_of(DataConfig)) if isinstance(data, DataConfig) else of_arrays
    if origin.dictionary:  # Of the samples it knows but that they stay as they are, where nothing else is asked for.
        asked = isinstance(data, DataConfig) and data.normalize != DataConfig().normalize
        read = tuple(name for name in read if name == "normalize" and not asked)
    others = [name for name in settings_of(DataConfig) if name not in read and name not in settings]
    return {name: value for name, value in every.items() if name not in others}, paired


@in_single_precision
def train(
    study: Study,
    observer: Observer,
    opened: Opener,
    recovery: Recovery | None = None,
    watched: bool = True,
    states: dict[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """Train and measure every lane of a study, one program after another.

    Args:
        study: what to train.
        observer: receives the plan, the progress and the points.
        opened: where the arrays of all lanes are held; see `arrays`.
        recovery: saves what is trained; None holds it in memory.
        watched: whether lanes are measured for the observer while they are trained; the same on every process.
        states: receives what lanes carry after their last step, as `Earlier.states`; None keeps none.

    Returns:
        What `sweep` does.

    Raises:
        Interrupted: the recovery was asked to end.
        UserError: a checkpoint cannot be written or read, or memory does not suffice.
    """
    fill(study, opened)
    observer.begin(study.grid.as_json(), sum(program.plan.lanes for program in study.programs))
    for number, program in enumerate(study.programs):
        where = "".join(f"{name} {value}, " for name, value in study.points[program.point].labels.items())
        observer.line(f"plan: {where}{program.plan}")
        lanes = place_lanes(study, number, watched, states is not None)
        run_lanes(lanes, functools.partial(_put, study, opened, program.point, states), observer, recovery)
    copy_equal(study, opened)
    dataset = to_dataset(study, opened)
    return dataset.assign_attrs({STARTED_FROM: study.origin.name}) if study.origin else dataset


def _put(
    study: Study,
    opened: Opener,
    number: int,
    states: dict[str, np.ndarray] | None,
    values: Arrays,
    cells: np.ndarray,
    seeds: np.ndarray,
) -> None:
    """Put finished lanes of a point where they belong, compared with the truth, and what they carry where kept."""
    point = study.points[number]
    put(study, opened, number, {**values, **truth_values(point, values, cells)}, cells, seeds)
    put_consistency(study, opened, number, values, cells, seeds)
    if states is not None:
        sizes = math.prod(study.grid.shape[:-1]), len(study.grid.seeds)
        put_states(states, opened, number, sizes, values, (cells, seeds))

"""A sweep whose input has been checked, with its data, and how its lanes are packed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from sae_jax import data as sources
from sae_jax.data import Data, DataConfig, Normalisation, as_data
from sae_jax.data.checks import holds_array
from sae_jax.data.statistics import offset
from sae_jax.models import Model
from sae_jax.settings import UserError, as_json, received, settings_of
from sae_jax.sweeps import processes
from sae_jax.sweeps.checks import check_data, check_snapshots, check_split
from sae_jax.sweeps.devices import choose_devices
from sae_jax.sweeps.grid import Grid, make_grid
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.origin import Origin, lanes_of, normalisation_of
from sae_jax.sweeps.plan import Engine, count, repacked
from sae_jax.sweeps.program import Point, Program, plan_lanes
from sae_jax.sweeps.split import Earlier, Split, points_of, sameness, split
from sae_jax.sweeps.start import Start, in_words, start_of
from sae_jax.training.config import LaneSettings, check_given, lane_at

Result = TypeVar("Result")
DOUBLE = (
    "warning: a sweep trains in single precision: got jax_enable_x64, which it does without; for double precision use "
    "train_step on float64 parameters and samples"
)


# What `as_data` reads of a DataConfig.
# Where the mean is longer than the spread, all samples lie on one side of many units.
LARGE_OFFSET = 1.0
RULES = ("normalize", "subtract_mean")
OF_ARRAYS = (*RULES, "heldout", "data_seed", "samples")


class Study(NamedTuple):
    """A sweep whose input has been checked: nothing but the arithmetic is left to do.

    Attributes:
        grid: what was asked for.
        points: what each combination of its program dimensions trains.
        lanes: which of the grid's lanes are trained, and where the others come from.
        programs: those that are trained.
        devices: what they are trained on.
        earlier: the sweep that this one extends; None begins a new one.
        starts: where the lanes of every program start; empty where all start at random.
    """

    grid: Grid
    points: list[Point]
    lanes: Split
    programs: list[Program]
    devices: list[jax.Device]
    earlier: Earlier | None = None
    starts: Sequence[Start] = ()


def in_single_precision(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function that computes in single precision, whatever jax_enable_x64 says: results do not depend on it."""

    @functools.wraps(function)
    def computed(*arguments: Any, **named: Any) -> Result:
        with jax.enable_x64(False):
            return function(*arguments, **named)

    return computed


def prepare(
    data: Data | np.ndarray | DataConfig,
    model: Model | str | Sequence[Model | str] = "classic",
    *,
    seeds: int | Sequence[int],
    zip: Sequence[str] = (),
    engine: Engine,
    observer: Observer,
    earlier: Earlier | None = None,
    origin: Origin | None = None,
    **settings: Any,
) -> Study:
    """Check everything that `sweep` was given, load the data and plan the lanes.

    Args:
        data, model, seeds, zip, settings: as in `sweep`.
        engine: how it is laid out.
        observer: receives lines about the data and the lanes.
        earlier: a sweep whose lanes are not trained again.
        origin: a sweep whose lanes they start from.

    Raises:
        UserError: as in `sweep`; or the earlier sweep is none of a part of this one.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        observer.line(DOUBLE)
    of_data = {name: value for name, value in settings.items() if name in settings_of(DataConfig)}
    load: Callable[[DataConfig, Normalisation | None], Data]
    if isinstance(data, Data):
        _refuse(of_data, "of data that are prepared already", "pass the array, or a DataConfig")
        source, load = data.config, lambda config, normalisation: data
    elif isinstance(data, DataConfig):
        source, load = data, sources.load
    else:
        if not holds_array(data):
            fix = "use DataConfig(dataset='digits'), or numpy.asarray"
            raise UserError(f"data must be samples, a DataConfig or Data: got {received(data)}; {fix}")
        read = {name: of_data.pop(name) for name in OF_ARRAYS if name in of_data}
        _refuse(of_data, "of no array", f"those of an array are {', '.join(OF_ARRAYS)}")
        source = DataConfig(dataset="array", **read)
        load = functools.partial(_array_data, data)
        settings = {name: value for name, value in settings.items() if name not in read}
    grid = make_grid(model, source, seeds, settings, zip)
    numbers = lanes_of(grid, origin) if origin else None
    if not earlier and not origin:  # Of settings that were not given nothing is unread by mistake.
        check_given(settings)
    processes.agree("load the data", "command line", [grid.as_json(), list(grid.dims), as_json(engine)])
    available = choose_devices(engine.devices)
    check_split(grid, engine, len(available))
    loaded: dict[DataConfig, Data] = {}
    points, said = [], {""}
    for number, (labels, settings_of_cells, data_config) in enumerate(grid.programs()):
        if data_config not in loaded:
            if load is sources.load and (file := sources.large_file(data_config)):
                observer.line(f"reading {file}")
            normalisation = None
            if origin and numbers is not None:
                normalisation = normalisation_of(origin, numbers[points_of(grid) == number], data_config)
            loaded[data_config] = load(data_config, normalisation)
            observer.line(f"data: {loaded[data_config].description}")
        samples = loaded[data_config]
        processes.agree("load the data", "samples", samples.summary)
        check_data(settings_of_cells, samples)
        if (line := _offset_line(settings_of_cells, samples)) not in said:
            said.add(line)
            observer.line(line)
        points.append(Point(labels, settings_of_cells, samples))
    lanes = split(grid, earlier, [point.data.summary for point in points])
    check_snapshots(grid, lanes)
    for line in lanes.lines:
        observer.line(line)
    # A device without a lane of its own would train a filler.
    if not processes.started() and lanes.groups:
        most = max(len(group.cells) * len(group.seeds) for group in lanes.groups)
        available = available[: most * engine.data_parallel]
    if earlier and not engine.cells_per_block and not engine.lanes_per_chunk:
        engine = dataclasses.replace(engine, cells_per_block=earlier.cells_per_block)
    programs, planned, starts = [], in_single_precision(plan_lanes), []
    for group in lanes.groups:
        point = points[group.point]
        part = lane_at(point.settings, group.cells)
        if origin and numbers is not None:
            of_group = numbers[points_of(grid) == group.point][group.cells][:, group.seeds]
            starts.append(start_of(origin, of_group, part, point.data.train.shape[1]))
            # Schedules go on where they stood.
            steps = starts[-1].step + part.training.steps
            part = dataclasses.replace(part, training=dataclasses.replace(part.training, steps=steps))
        plan = planned(part, point.data, len(group.seeds), available, engine)
        programs.append(Program(point, group.cells, group.seeds, part, plan))
    if earlier:
        observer.line(sameness(earlier, points, programs))
    if starts:
        observer.line(in_words(starts))
    return Study(grid, points, lanes, programs, available, earlier, starts)


def _offset_line(settings: LaneSettings, data: Data) -> str:
    """How far samples lie from 0, for a model whose decoder bias may start elsewhere; "" for others."""
    centre = getattr(settings.model, "centre", None)
    if centre is None:
        return ""
    gamma = offset(data.train)
    hint = f"; units may die: use centre mean, or normalize centre (it is {centre})" if centre == "zero" else ""
    return f"data: gamma, ||mean|| / ||std||, is {gamma:.3g}{hint if gamma > LARGE_OFFSET else ''}"


def _array_data(samples: np.ndarray, config: DataConfig, normalisation: Normalisation | None) -> Data:
    return as_data(samples, config, normalisation=normalisation)


def _refuse(settings: Mapping[str, Any], why: str, fix: str) -> None:
    """Refuse settings of the data that cannot be given beside samples."""
    for name in settings:
        raise UserError(f"{name} is a setting {why}: got it beside samples; {fix}")


def check_states_end(study: Study) -> None:
    """Refuse to keep the states of lanes whose parameters are not those of their last step.

    Raises:
        UserError: lanes may stop early.
    """
    for point in study.points:
        if point.settings.training.patience:
            raise UserError(
                f"keep_state needs lanes that end at their last step: got patience {point.settings.training.patience}, "
                "which keeps earlier parameters; leave one of them out"
            )


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

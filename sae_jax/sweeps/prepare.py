"""From what a sweep was given to its study: settings are checked, data loaded, lanes sorted and planned."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from sae_jax import data as sources
from sae_jax.data import Data, DataConfig, Normalisation, as_data, as_stream
from sae_jax.data.batch_sources import holds_batches
from sae_jax.data.checks import as_array, checked, holds_array
from sae_jax.data.statistics import offset
from sae_jax.models import Model
from sae_jax.settings import UserError, as_json, received, settings_of
from sae_jax.sweeps import processes
from sae_jax.sweeps.checks import check_data, check_read, check_snapshots, check_split, unread_lines
from sae_jax.sweeps.devices import choose_devices
from sae_jax.sweeps.grid import Grid, make_grid
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.origin import lanes_of, normalisation_of
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.program import Point, Program, plan_lanes
from sae_jax.sweeps.split import equal_lines, first_alike, known_lanes, known_line, points_of, sameness, to_train
from sae_jax.sweeps.start import in_words, steps_before
from sae_jax.sweeps.study import Earlier, Study
from sae_jax.sweeps.targets import check_all_or_none, with_outputs
from sae_jax.sweeps.used_parts import warn_of_measures
from sae_jax.training.config import LaneSettings, check_exact, check_given, check_steps, lane_at

Result = TypeVar("Result")
Load = Callable[[DataConfig, Normalisation | None], Data]
DOUBLE = (
    "warning: a sweep trains in single precision: got jax_enable_x64, which it does without; for double precision use "
    "train_step on float64 parameters and samples"
)

# Where the mean is longer than the spread, all samples lie on one side of many units.
LARGE_OFFSET = 1.0
# What `as_data` reads of a DataConfig.
NORMALISATION_SETTINGS = ("normalize", "subtract_mean")
OF_ARRAYS = (*NORMALISATION_SETTINGS, "heldout", "data_seed", "samples")


def in_single_precision(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function that computes in single precision, whatever jax_enable_x64 says: results do not depend on it."""

    @functools.wraps(function)
    def computed(*arguments: Any, **named: Any) -> Result:
        with jax.enable_x64(False):
            return function(*arguments, **named)

    return computed


def prepare(
    data: Any,
    model: Model | str | Sequence[Model | str] = "classic",
    *,
    seeds: int | Sequence[int],
    zip: Sequence[str] = (),
    engine: Engine,
    observer: Observer,
    earlier: Earlier | None = None,
    origin: Earlier | None = None,
    keep_state: bool = False,
    **settings: Any,
) -> Study:
    """Check everything that `sweep` was given, load the data and plan the lanes.

    Args:
        data, model, seeds, zip, settings: as in `sweep`.
        engine: how it is laid out.
        observer: receives lines about the data and the lanes.
        earlier: a sweep whose lanes are not trained again.
        origin: a sweep whose lanes they start from.
        keep_state: whether what lanes carry is kept, which may differ where all that is measured is the same.

    Raises:
        UserError: as in `sweep`; or the earlier sweep is none of a part of this one.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        observer.line(DOUBLE)
    source, load, settings = _source(data, settings)
    settings = with_outputs(model, source, data, settings)
    grid = make_grid(model, source, seeds, settings, zip)
    if not origin:
        check_steps(grid.axes["steps"] if "steps" in grid.axes else (grid.fixed["steps"],))
    numbers = lanes_of(grid, origin) if origin else None
    # Of settings that were not given nothing is unread by mistake.
    given = {} if earlier or origin else settings
    check_given(given)
    check_read(grid, given)
    for _, lanes, _ in grid.programs():
        check_exact(lanes)
    processes.agree("load the data", "command line", [grid.as_json(), list(grid.dims), as_json(engine)])
    available = choose_devices(engine.devices)
    check_split(grid, engine, len(available))
    points = _loaded(grid, load, observer, origin, numbers)
    first, equal = first_alike(grid, numbers)
    if keep_state:
        equal = {}
    known = known_lanes(grid, earlier, first, [point.data.summary for point in points])
    if earlier and processes.leads():
        warn_of_measures(earlier.dataset, grid, earlier.name)
    groups = to_train(grid, equal, known)
    check_snapshots(grid, groups)
    unread = [*unread_lines(grid, given), *equal_lines(grid, equal)]
    for line in [*unread, *([known_line(earlier, known, groups)] if earlier else [])]:
        observer.line(line)
    # A device without a lane of its own would train a filler.
    if not processes.started() and groups:
        available = available[: max(len(cells) * len(seeds) for _, cells, seeds in groups) * engine.group]
    if earlier and not engine.cells_per_block and not engine.lanes_per_chunk:
        engine = dataclasses.replace(engine, cells_per_block=earlier.cells_per_block)
    programs = []
    for number, cells, seeds_of_cells in groups:
        start = None if numbers is None else numbers[points_of(grid) == number][cells][:, seeds_of_cells]
        settings_of_cells, before = _continued(points[number], cells, origin, start)
        plan = in_single_precision(plan_lanes)(
            settings_of_cells, points[number].data, len(seeds_of_cells), available, engine
        )
        programs.append(Program(number, cells, seeds_of_cells, settings_of_cells, plan, start, before))
    if earlier:
        observer.line(sameness(earlier, points, programs))
    if origin:
        observer.line(in_words(origin, points, programs))
    return Study(grid, points, programs, equal, known, available, earlier, origin)


def _source(data: Any, settings: dict[str, Any]) -> tuple[DataConfig, Load, dict[str, Any]]:
    """What settings do not say of the samples, what loads them, and the settings of the sweep without those read here.

    Raises:
        UserError: there are settings of the data that these samples do not have.
    """
    of_data = {name: value for name, value in settings.items() if name in settings_of(DataConfig)}
    if isinstance(data, Data):
        _refuse(of_data, "of data that are prepared already", "pass the array, or a DataConfig")
        return data.config, lambda config, normalisation: data, settings
    if isinstance(data, DataConfig):
        return data, sources.load, settings
    if holds_batches(data):
        read = {name: of_data.pop(name) for name in NORMALISATION_SETTINGS if name in of_data}
        _refuse(of_data, "of no stream", f"those of a stream are {', '.join(NORMALISATION_SETTINGS)}")
        others = {name: value for name, value in settings.items() if name not in read}
        return DataConfig(dataset="array", **read), functools.partial(_stream_data, data), others
    if not holds_array(data):
        fix = "use DataConfig(dataset='digits'), or numpy.asarray"
        raise UserError(f"data must be samples, a DataConfig or Data: got {received(data)}; {fix}")
    targets = of_data.pop("targets", None)
    read = {name: of_data.pop(name) for name in OF_ARRAYS if name in of_data}
    _refuse(of_data, "of no array", f"those of an array are {', '.join(OF_ARRAYS)}, and targets")
    others = {name: value for name, value in settings.items() if name not in {*read, "targets"}}
    if targets is not None and "outputs" not in others:
        rows = as_array(targets, "targets", "[samples, outputs]")
        others["outputs"] = int(checked(rows[:1] if rows.ndim else rows, "targets", ("samples", "outputs")).shape[1])
    return DataConfig(dataset="array", **read), functools.partial(_array_data, data, targets), others


def _loaded(
    grid: Grid, load: Load, observer: Observer, origin: Earlier | None, numbers: np.ndarray | None
) -> list[Point]:
    """What each combination of a grid's program dimensions trains, its samples loaded and checked.

    Args:
        grid, load, observer: as in `prepare`.
        origin, numbers: the sweep whose lanes they start from, and which, [cells, seeds]; None starts at random.
    """
    loaded: dict[DataConfig, Data] = {}
    points, said = [], {""}
    for number, (labels, settings, config) in enumerate(grid.programs()):
        if config not in loaded:
            if load is sources.load and (file := sources.large_file(config)):
                observer.line(f"reading {file}")
            normalisation = None
            if origin and numbers is not None:
                normalisation = normalisation_of(origin, numbers[points_of(grid) == number], config)
            loaded[config] = load(config, normalisation)
            observer.line(f"data: {loaded[config].description}")
            if loaded[config].warning:
                observer.line(f"warning: {loaded[config].warning}")
        samples = loaded[config]
        processes.agree("load the data", "samples", samples.summary)
        check_data(settings, samples)
        if (line := _offset_line(settings, samples)) not in said:
            said.add(line)
            observer.line(line)
        points.append(Point(labels, settings, samples))
    check_all_or_none([point.data for point in points])
    return points


def _continued(
    point: Point, cells: np.ndarray, origin: Earlier | None, start: np.ndarray | None
) -> tuple[LaneSettings, int | None]:
    """Settings of some cells of a point, and the steps that were taken before, as in `Program`."""
    settings = lane_at(point.settings, cells)
    if origin is None or start is None:
        return settings, None
    before = steps_before(origin, start, settings, point.data.train.shape[1])
    # Schedules go on where they stood.
    training = dataclasses.replace(settings.training, steps=settings.training.steps + (before or 0))
    return dataclasses.replace(settings, training=training), before


def _offset_line(settings: LaneSettings, data: Data) -> str:
    """How far samples lie from 0, for a model whose decoder bias may start elsewhere; "" for others."""
    centre = getattr(settings.model, "centre", None)
    if centre is None:
        return ""
    gamma = offset(data.reconstructed)
    hint = f"; units may die: use centre mean, or normalize centre (it is {centre})" if centre == "zero" else ""
    return f"data: gamma, ||mean|| / ||std||, is {gamma:.3g}{hint if gamma > LARGE_OFFSET else ''}"


def _array_data(
    samples: np.ndarray, targets: np.ndarray | None, config: DataConfig, normalisation: Normalisation | None
) -> Data:
    return as_data(samples, config, normalisation=normalisation, targets=targets)


def _stream_data(source: Any, config: DataConfig, normalisation: Normalisation | None) -> Data:
    return as_stream(source, config=config, normalisation=normalisation)


def _refuse(settings: Mapping[str, Any], why: str, fix: str) -> None:
    """Refuse settings of the data that cannot be given beside samples."""
    for name in settings:
        raise UserError(f"{name} is a setting {why}: got it beside samples; {fix}")

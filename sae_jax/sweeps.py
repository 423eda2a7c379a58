"""The main job: every combination of settings, for every seed, as one labelled array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from sae_jax import data as sources
from sae_jax.autoencoder import decoder_weight
from sae_jax.config import Config, DataConfig
from sae_jax.data import Data, as_data
from sae_jax.grids import DATA, Grid, make_grid
from sae_jax.metrics import evaluate
from sae_jax.parallel import Plan, choose_devices, lane_mesh, layout, make_plan, memory_budget, over_lanes, place
from sae_jax.results import join, to_dataset
from sae_jax.settings import UserError
from sae_jax.training import LaneState, Metrics, final_params, init_lane, train_window, windows


class Progress(NamedTuple):
    """Where a program of a sweep stands: its phase (compiling, training, evaluating), steps over all chunks, lanes."""

    phase: str
    step: int
    steps: int
    lanes: int


class Reporter:
    """Somebody who is told how a sweep goes; this one ignores it."""

    def line(self, text: str) -> None:
        """Take one line of text."""

    def progress(self, progress: Progress) -> None:
        """Take where a program stands."""


def sweep(
    config: Config = Config(),  # noqa: B008
    data: Data | np.ndarray | DataConfig = DataConfig(),  # noqa: B008
    *,
    seeds: int | Sequence[int] = 1,
    devices: int | None = None,
    lanes_per_chunk: int | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Train a grid of autoencoders, every cell with every seed, and measure them on held-out data.

    Args:
        config: what the settings do not say about the program.
        data: samples [samples, features] or Data; or a DataConfig, whose fields may then be settings too.
        seeds: a number N for seeds 0..N-1, or the seeds themselves.
        devices: how many devices to use; None is all (on a CPU, one per core).
        lanes_per_chunk: the most lanes trained at once; None is what memory allows.
        reporter: is told the plan and the progress.
        settings: any field of Hyperparameters, Config or DataConfig: a value, or a sequence of values for an axis.

    Returns:
        A Dataset whose dimensions are the settings given as sequences, seed, and step, unit or input. It holds the
        curves, the held-out measures and the parameters of every lane; its attribute config holds every setting.

    Raises:
        UserError: a setting or the data break a rule.
    """
    reporter = reporter or Reporter()
    ready = None if isinstance(data, DataConfig) else data if isinstance(data, Data) else as_data(data)
    if ready is not None and set(settings) & set(DATA):
        name = sorted(set(settings) & set(DATA))[0]
        raise UserError(f"{name} is a setting of the data: got it beside samples; pass a DataConfig instead of them")
    grid = make_grid(config, data if isinstance(data, DataConfig) else DataConfig(), seeds, settings)
    chosen = choose_devices(devices)
    loaded: dict[DataConfig, Data] = {}
    programs = []
    for _, static, source in grid.programs():
        if source not in loaded:
            loaded[source] = ready or sources.load(source)
            reporter.line(f"data: {loaded[source].description}")
        check_data(static, loaded[source])
        programs.append((static, loaded[source], plan_program(grid, static, loaded[source], chosen, lanes_per_chunk)))
    done = []
    for (point, _, _), (static, samples, plan) in zip(grid.programs(), programs, strict=True):
        where = "".join(f"{name} {value}, " for name, value in point.items())
        reporter.line(f"plan: {where}{plan}")
        lanes = run_program(grid, static, samples, plan, chosen, reporter)
        done.append((point, to_dataset(grid, static, lanes, windows(static.steps), samples.image_shape)))
    return join(grid, done)


def check_data(config: Config, data: Data) -> None:
    """Refuse settings that cannot work with the data, before anything is trained.

    Raises:
        UserError: a batch is larger than the data, or a sigmoid output cannot reach the values.
    """
    if config.batch_size > len(data.train):
        raise UserError(
            f"batch_size must be at most the number of training samples: got {config.batch_size} of {len(data.train)}"
        )
    low, high = float(data.train.min()), float(data.train.max())
    if config.output == "sigmoid" and (low < 0 or high > 1):
        raise UserError(
            f"output sigmoid needs data in [0, 1]: got values from {low:.3g} to {high:.3g}; "
            "use output linear, or normalize ufldl"
        )
    constant = float(np.ptp(data.heldout, axis=0).max()) == 0
    if constant:
        raise UserError("held-out samples must differ: all are the same, so explained variance is undefined")


def plan_program(
    grid: Grid, config: Config, data: Data, devices: list[jax.Device], lanes_per_chunk: int | None
) -> Plan:
    """Lay a program's lanes out, from the memory that one lane needs.

    A lane is counted twice, as a window's argument and its result, with the activations of one batch and their
    gradients on top.
    """
    hyper = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((), leaf.dtype), grid.cells())
    d_in = data.train.shape[1]
    state = jax.eval_shape(lambda seed, h: init_lane(jax.random.key(seed), config, h, d_in), 0, hyper)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    rows = max(config.batch_size, len(data.heldout) if config.patience else 0)
    lane_bytes = 2 * state_bytes + 4 * rows * 3 * (d_in + config.d_hidden)
    # Evaluation runs one lane at a time on each device.
    shared = data.train.nbytes + data.heldout.nbytes + 4 * len(data.heldout) * 3 * (d_in + config.d_hidden)
    cells = int(np.prod(grid.shape[:-1]))
    budget = memory_budget(devices, shared)
    return make_plan(cells, len(grid.seeds), devices, lane_bytes, budget, lanes_per_chunk)


def run_program(
    grid: Grid, config: Config, data: Data, plan: Plan, devices: list[jax.Device], reporter: Reporter
) -> dict[str, np.ndarray]:
    """Train and measure all lanes of one compiled program.

    Returns:
        Arrays by variable name, each with leading axes [cells, seeds].
    """
    mesh, stops = lane_mesh(devices), windows(config.steps)
    train, heldout = (place(part, mesh, split=False) for part in (data.train, data.heldout))
    d_in = train.shape[1]
    start_lanes = over_lanes(lambda _, hyper, key: init_lane(key, config, hyper, d_in), mesh, plan.sequential, 0)
    advance = over_lanes(
        lambda train, heldout, start, stop, lane, hyper, key: train_window(
            config, lane, train, heldout, hyper, key, start, stop
        ),
        mesh,
        plan.sequential,
        shared=4,
        donate=True,
    )
    measure = over_lanes(lambda heldout, lane, hyper, key: _measure(lane, heldout, config), mesh, True, shared=1)

    arrays: dict[str, np.ndarray] = {}
    cell_of, seed_of = layout(plan)
    total = config.steps * plan.chunks
    reporter.progress(Progress("compiling", 0, total, plan.lanes))
    for chunk, (cells, seeds) in enumerate(zip(cell_of, seed_of, strict=True)):
        hyper = place(jax.tree.map(lambda leaf: leaf[np.maximum(cells, 0)], grid.cells()), mesh, split=True)  # noqa: B023
        keys = place(jax.vmap(jax.random.key)(np.asarray(grid.seeds, np.uint32)[seeds]), mesh, split=True)
        lanes = start_lanes(np.zeros(cells.shape), hyper, keys)
        curves: list[Metrics] = []
        for start, stop in zip([0, *stops[:-1]], stops, strict=True):
            lanes, metrics = advance(train, heldout, np.int32(start), np.int32(stop), lanes, hyper, keys)
            curves.append(metrics)
            # One window stays in flight, so that the devices do not wait for the host.
            if len(curves) > 1:
                jax.block_until_ready(curves[-2])
                reporter.progress(Progress("training", chunk * config.steps + int(start), total, plan.lanes))
        reporter.progress(Progress("evaluating", (chunk + 1) * config.steps, total, plan.lanes))
        found = jax.device_get(measure(heldout, lanes, hyper, keys))
        stacked = jax.tree.map(lambda *points: np.stack(points, axis=-1), *jax.device_get(curves))
        found |= {name: getattr(stacked, name) for name in Metrics._fields}
        _scatter(arrays, found, cells, seeds, plan)
    return arrays


def _measure(lane: LaneState, heldout: Array, config: Config) -> dict[str, Array]:
    params = final_params(lane)
    evaluation = evaluate(params, heldout, config)
    return {
        **{f"eval_{name}": value for name, value in evaluation._asdict().items()},
        **params,
        "decoder_weight": decoder_weight(params),
        "diverged_at": lane.train.diverged_at,
        "stopped_at": lane.stopped_at,
    }


def _scatter(
    arrays: dict[str, np.ndarray], found: dict[str, np.ndarray], cells: np.ndarray, seeds: np.ndarray, plan: Plan
) -> None:
    """Put a chunk's arrays [blocks, cells, ...] where they belong in arrays [cells, seeds, ...], fillers left out."""
    real = cells >= 0
    where = cells[real], np.broadcast_to(seeds[:, None], cells.shape)[real]
    for name, values in found.items():
        if name not in arrays:
            arrays[name] = np.empty((plan.cells, plan.seeds, *values.shape[2:]), values.dtype)
        arrays[name][where] = values[real]

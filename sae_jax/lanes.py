"""Training and measuring all lanes of one compiled program, chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax import distributed
from sae_jax.autoencoder import decoder_weight
from sae_jax.config import Config
from sae_jax.data import Data
from sae_jax.metrics import evaluate
from sae_jax.parallel import batch_axis, fetch, lane_mesh, over_lanes, own_devices, place, place_keys
from sae_jax.plan import Engine, Plan, layout, make_plan, memory_budget
from sae_jax.training import LaneState, Metrics, final_params, init_lane, train_window, windows
from sae_jax.types import Hyperparameters


class Progress(NamedTuple):
    """Where a program stands: its phase (compiling, training, evaluating), steps over all chunks, lanes."""

    phase: str
    step: int
    steps: int
    lanes: int


class Compiled(NamedTuple):
    """The three functions of a program, each over all lanes of a chunk."""

    start: jax.stages.Wrapped
    advance: jax.stages.Wrapped
    measure: jax.stages.Wrapped


@functools.lru_cache(maxsize=32)
def compiled(config: Config, d_in: int, mesh: Mesh, sequential: bool) -> Compiled:
    """The program of a Config: kept, so that another data set or another call of the same shapes compiles nothing."""
    return Compiled(
        start=over_lanes(lambda hyper, key: init_lane(key, config, hyper, d_in), mesh, 0, sequential),
        advance=over_lanes(
            lambda train, heldout, start, stop, lane, hyper, key: train_window(
                config, lane, train, heldout, hyper, key, start, stop, batch_axis(mesh)
            ),
            mesh,
            4,
            sequential,
            donate=True,
        ),
        # One lane at a time: a held-out split is many times as large as a batch.
        measure=over_lanes(
            lambda heldout, lane, hyper, key: _measure(lane, heldout, config, hyper), mesh, 1, True, cells_in_turn=True
        ),
    )


def plan_lanes(
    config: Config,
    data: Data,
    hyper: Hyperparameters,
    seeds: tuple[int, ...],
    devices: list[jax.Device],
    engine: Engine,
) -> Plan:
    """Lay a program's lanes out, from the memory that one lane needs.

    A lane counts twice, as a window's argument and as its result, with the activations and their gradients of its
    device's share of a batch.

    Args:
        config, data: the program and its samples.
        hyper: hyperparameters of every cell, each leaf [cells].
        seeds: seeds of every cell.
        devices: devices to spread over.
        engine: what the user has decided.
    """
    d_in = data.train.shape[1]
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((), leaf.dtype), hyper)
    state = jax.eval_shape(lambda seed, h: init_lane(jax.random.key(seed), config, h, d_in), 0, one)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    row_bytes = 3 * 4 * (d_in + config.d_hidden)
    watched = len(data.heldout) if config.patience else 0
    batch = len(data.train) if config.optimizer == "lbfgs" else config.batch_size // engine.data_parallel
    lane_bytes = 2 * state_bytes + row_bytes * max(batch, watched)
    shared_bytes = data.train.nbytes + data.heldout.nbytes + row_bytes * len(data.heldout)
    # Every process must make the same plan.
    budget = distributed.least(memory_budget(own_devices(devices), shared_bytes))
    # In step with others, a lane's line search waits for the longest one.
    widest = 1 if config.optimizer == "lbfgs" and devices[0].platform == "cpu" else 0
    return make_plan(len(hyper.rho), len(seeds), devices, lane_bytes, budget, engine, widest)


def run_lanes(
    config: Config,
    data: Data,
    hyper: Hyperparameters,
    seeds: tuple[int, ...],
    devices: list[jax.Device],
    plan: Plan,
    keep: Callable[[dict[str, np.ndarray], np.ndarray, np.ndarray], None],
    progress: Callable[[Progress], None],
) -> None:
    """Train and measure all lanes of one program, a chunk at a time, and hand every finished chunk on.

    Args:
        config, data: the program and its samples.
        hyper: hyperparameters of every cell, each leaf [cells].
        seeds: seeds of every cell.
        devices, plan: where the lanes go.
        keep: takes a chunk's lanes, for good: arrays by variable name [lanes, ...], and the lanes' positions among the
            cells and among the seeds, [lanes].
        progress: is told where the program stands.
    """
    mesh, stops = lane_mesh(devices, plan.data_parallel), windows(config.steps)
    train, heldout = (place(part, mesh, split=False) for part in (data.train, data.heldout))
    program = compiled(config, train.shape[1], mesh, plan.sequential)
    total = config.steps * plan.chunks
    progress(Progress("compiling", 0, total, plan.lanes))
    for chunk, (cells, seed_of) in enumerate(zip(*layout(plan), strict=True)):
        here = np.maximum(cells, 0)
        settings = place(jax.tree.map(lambda leaf, here=here: leaf[here], hyper), mesh, split=True)
        keys = place_keys(np.asarray(seeds, np.uint32)[seed_of], mesh)
        lanes = program.start(settings, keys)
        curves: list[Metrics] = []
        in_flight: list[Metrics] = []
        for start, stop in zip([0, *stops[:-1]], stops, strict=True):
            # One window stays in flight, so that the devices do not wait for the host.
            if len(in_flight) > 1:
                curves.append(fetch(in_flight.pop(0), mesh))
                progress(Progress("training", chunk * config.steps + int(start), total, plan.lanes))
                if np.all(np.isnan(curves[-1].loss)):
                    break  # Every lane has stopped or diverged.
            lanes, metrics = program.advance(train, heldout, np.int32(start), np.int32(stop), lanes, settings, keys)
            in_flight.append(metrics)
        progress(Progress("evaluating", (chunk + 1) * config.steps, total, plan.lanes))
        found = fetch(program.measure(heldout, lanes, settings, keys), mesh)
        curves += [fetch(metrics, mesh) for metrics in in_flight]
        stacked = jax.tree.map(lambda *points: np.stack(points, axis=-1), *curves)
        missing = [(0, 0), (0, 0), (0, len(stops) - len(curves))]
        for name in Metrics._fields:
            found[name] = np.pad(getattr(stacked, name), missing, constant_values=np.nan)
        real = cells >= 0
        seeds_of = np.broadcast_to(seed_of[:, None], cells.shape)
        keep({name: values[real] for name, values in found.items()}, cells[real], seeds_of[real])


def _measure(lane: LaneState, heldout: Array, config: Config, hyper: Hyperparameters) -> dict[str, Array]:
    params = final_params(lane)
    evaluation = evaluate(params, heldout, config, hyper.k)
    return {
        **{f"eval_{name}": value for name, value in evaluation._asdict().items()},
        **params,
        "decoder_weight": decoder_weight(params),
        "diverged_at": lane.train.diverged_at,
        "stopped_at": lane.stopped_at,
    }

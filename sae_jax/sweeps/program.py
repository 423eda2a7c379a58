"""One compiled program: its functions over all lanes of a chunk, and how its lanes are laid out."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax.data import Data
from sae_jax.models.autoencoder import decoder_weight
from sae_jax.models.types import Hyperparameters, Key
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.devices import batch_axis, over_lanes, own_devices
from sae_jax.sweeps.plan import Engine, Plan, make_plan, memory_budget
from sae_jax.training.config import Config
from sae_jax.training.evaluation import evaluate
from sae_jax.training.lane import LaneState, end_window, final_params, init_lane, no_metrics, train_steps
from sae_jax.training.step import Metrics


class Compiled(NamedTuple):
    """The three functions of a program, each over all lanes of a chunk.

    Attributes:
        start: f(hyper, keys) -> (lanes, sums over no steps).
        advance: f(train, heldout, start, stop, length, (lanes, sums), hyper, keys) -> ((lanes, sums), Metrics). Trains
            from one step to another; length is that of the logged window that ends there, 0 where none does.
        measure: f(heldout, lanes, hyper, keys) -> held-out measures and parameters by variable name.
    """

    start: jax.stages.Wrapped
    advance: jax.stages.Wrapped
    measure: jax.stages.Wrapped


@functools.lru_cache(maxsize=32)
def compiled(config: Config, d_in: int, mesh: Mesh, sequential: bool) -> Compiled:
    """The program of a Config: kept, so that another data set or another call of the same shapes compiles nothing."""
    return Compiled(
        start=over_lanes(lambda hyper, key: (init_lane(key, config, hyper, d_in), no_metrics()), mesh, 0, sequential),
        advance=over_lanes(functools.partial(_advance, config, batch_axis(mesh)), mesh, 5, sequential, in_place=True),
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

    A lane counts twice, as it is kept between calls and while it is trained, with the activations and their gradients
    of its device's share of a batch.

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
    budget = min(distributed.gather("load the data", lambda: memory_budget(own_devices(devices), shared_bytes)))
    # In step with others, a lane's line search waits for the longest one.
    widest = 1 if config.optimizer == "lbfgs" and devices[0].platform == "cpu" else 0
    return make_plan(len(hyper.rho), len(seeds), devices, lane_bytes, budget, engine, widest)


def _advance(
    config: Config,
    axis_name: str | None,
    train: Array,
    heldout: Array,
    start: Array,
    stop: Array,
    length: Array,
    carry: tuple[LaneState, Metrics],
    hyper: Hyperparameters,
    key: Key,
) -> tuple[tuple[LaneState, Metrics], Metrics]:
    lane, total = train_steps(config, *carry, train, hyper, key, start, stop, axis_name)
    lane, metrics = end_window(config, lane, total, heldout, hyper, length)
    total = jax.tree.map(lambda value: jnp.where(length > 0, 0, value), total)
    return (lane, total), metrics


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

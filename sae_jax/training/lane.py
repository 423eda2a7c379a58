"""A whole training of one lane: any number of steps, the points that it logs, and when it stops."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sae_jax.data.batches import batch_indices, own_rows
from sae_jax.models.losses import heldout_objective
from sae_jax.models.types import Hyperparameters, Key, Params, Scalar
from sae_jax.training.config import Config
from sae_jax.training.optimizers import warmed_up
from sae_jax.training.step import Metrics, TrainState, init_state, keys_of, train_step

LOGGED_POINTS = 200


@struct.dataclass
class LaneState:
    """A lane during `fit`: its training, and the bookkeeping of early stopping on held-out data.

    Attributes:
        train: the training state.
        best_params: parameters of the best logged point; None where patience is 0.
        best_loss: held-out objective there.
        waited: logged points since.
        stopped_at: step at which patience ran out, int32; -1 where it did not.
    """

    train: TrainState
    best_params: Params | None
    best_loss: Array
    waited: Array
    stopped_at: Array


def windows(steps: int) -> np.ndarray:
    """Where logged points end: at most LOGGED_POINTS step numbers, evenly apart, the last one `steps`."""
    every = math.ceil(steps / LOGGED_POINTS)
    return np.minimum(np.arange(every, steps + every, every), steps)


def init_lane(key: Key, config: Config, hyper: Hyperparameters, d_in: int) -> LaneState:
    """A lane before its first step; `key` is the seed's key."""
    train = init_state(keys_of(key).init, config, hyper, d_in)
    best = train.params if config.patience else None
    return LaneState(train, best, jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(-1))


def no_metrics(dtype: Any = jnp.float32) -> Metrics:
    """The sum over no steps."""
    return Metrics(*[jnp.zeros((), dtype)] * len(Metrics._fields))


def train_steps(
    config: Config,
    lane: LaneState,
    total: Metrics,
    train: Float[Array | np.ndarray, "samples d_in"],
    hyper: Hyperparameters,
    key: Key,
    start: Scalar | Array,
    stop: Scalar | Array,
    axis_name: str | None = None,
) -> tuple[LaneState, Metrics]:
    """Train one lane from step `start` to step `stop`, gathering minibatches on the device.

    Args:
        lane: the lane at step start.
        total: Metrics summed over the steps since the last logged point.
        train: samples to train on.
        hyper: swept settings, scalars.
        key: the seed's key.
        start, stop: step numbers; they may be traced, so that one program serves any number of steps.
        axis_name: named axis whose devices each take their share of a batch's samples; None for whole batches.

    Returns:
        (lane at step stop, total with these steps); a lane that has stopped early stays as it is.
    """
    keys = keys_of(key)

    def body(step: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, total = carry
        if config.optimizer == "lbfgs":
            batch = train
        else:
            indices = batch_indices(keys.batches, step, train.shape[0], config.batch_size)
            batch = train[own_rows(indices, axis_name)]
        noise_key = jax.random.fold_in(keys.noise, step)
        state, metrics = train_step(config, state, batch, hyper, axis_name, noise_key)
        return state, jax.tree.map(jnp.add, total, metrics)

    state, total = jax.lax.fori_loop(start, stop, body, (lane.train, total))
    if config.patience:
        running = lane.stopped_at < 0
        state = jax.tree.map(lambda new, old: jnp.where(running, new, old), state, lane.train)
    return dataclasses.replace(lane, train=state), total


def end_window(
    config: Config,
    lane: LaneState,
    total: Metrics,
    heldout: Float[Array | np.ndarray, "heldout d_in"],
    hyper: Hyperparameters,
    length: Scalar | Array,
) -> tuple[LaneState, Metrics]:
    """Log a point: the averages of a window of steps, and what early stopping makes of held-out data.

    Args:
        lane: the lane at the window's last step.
        total: Metrics summed over the window.
        heldout: samples to watch; only looked at where patience is above 0.
        hyper: swept settings, scalars.
        length: steps in the window; where it is 0, the window goes on and the lane stays as it is.

    Returns:
        (the lane, Metrics averaged over the window; NaN where the lane had diverged or stopped).
    """
    state, running = lane.train, lane.stopped_at < 0
    shown = running & (state.diverged_at < 0)
    metrics = jax.tree.map(lambda value: jnp.where(shown, value / jnp.maximum(length, 1), jnp.nan), total)
    if not config.patience:
        return lane, metrics

    def watch() -> LaneState:
        loss = heldout_objective(state.params, heldout, config, hyper)
        watched = running & warmed_up(state.step, config, hyper) & (state.diverged_at < 0)
        better = watched & (loss < lane.best_loss)
        waited = jnp.where(better, 0, lane.waited + watched)
        out_of_patience = watched & (waited >= config.patience)
        # Until something is watched, and where nothing was, a lane stands for its last parameters.
        newest = better | jnp.isinf(lane.best_loss)
        best = jax.tree.map(lambda new, old: jnp.where(newest, new, old), state.params, lane.best_params)
        return LaneState(
            train=state,
            best_params=best,
            best_loss=jnp.where(better, loss, lane.best_loss),
            waited=waited,
            stopped_at=jnp.where(out_of_patience, state.step, lane.stopped_at),
        )

    return jax.lax.cond(length > 0, watch, lambda: lane), metrics


def final_params(lane: LaneState) -> Params:
    """The parameters that a finished lane stands for: the best logged ones under early stopping, else the last."""
    return lane.train.params if lane.best_params is None else lane.best_params


def fit(
    config: Config,
    train: Float[Array | np.ndarray, "samples d_in"],
    heldout: Float[Array | np.ndarray, "heldout d_in"],
    hyper: Hyperparameters,
    key: Key,
) -> tuple[LaneState, Metrics]:
    """Train one lane from its seed to its last step: a `lax.scan` over windows of steps.

    Args:
        config: static settings.
        train, heldout: samples to train on and to watch for early stopping.
        hyper: swept settings, scalars.
        key: the seed's key, `jax.random.key(seed)`.

    Returns:
        (the finished lane, Metrics with a leading axis over `windows(config.steps)`).
    """
    train, heldout = jnp.asarray(train), jnp.asarray(heldout)
    stops = windows(config.steps)
    starts = np.concatenate([[0], stops[:-1]])

    def window(lane: LaneState, bounds: Array) -> tuple[LaneState, Metrics]:
        start, stop = bounds
        lane, total = train_steps(config, lane, no_metrics(train.dtype), train, hyper, key, start, stop)
        return end_window(config, lane, total, heldout, hyper, stop - start)

    bounds = jnp.asarray(np.stack([starts, stops], axis=1), jnp.int32)
    lane, points = jax.lax.scan(window, init_lane(key, config, hyper, train.shape[1]), bounds)
    return lane, points

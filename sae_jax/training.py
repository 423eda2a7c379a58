"""One training step, a window of steps, and a whole training of one lane: pure functions over an explicit state."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from sae_jax import autoencoder, sparsity
from sae_jax.batches import batch_indices, own_rows
from sae_jax.config import Config
from sae_jax.corruption import corrupt
from sae_jax.losses import Aux, heldout_objective, objective
from sae_jax.optimizers import learning_rate, make_optimizer, units_kept, warmed_up, warmup
from sae_jax.settings import LARGEST, UserError
from sae_jax.sparsity import SparsityState
from sae_jax.types import Batch, Hyperparameters, Key, Params, Scalar

LOGGED_POINTS = 200


@struct.dataclass
class TrainState:
    """Everything that training one lane carries from step to step.

    Attributes:
        params: parameter pytree.
        opt_state: optax state.
        sparsity: running mean activation.
        step: steps taken, int32.
        diverged_at: step at which the loss or the norm of the gradients or updates turned non-finite, int32; -1 where
            none ever did. From there on the lane is frozen with its last finite parameters.
    """

    params: Params
    opt_state: Any
    sparsity: SparsityState
    step: Array
    diverged_at: Array


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


class Metrics(NamedTuple):
    """Terms of the training loss: their sum with weight decay, the reconstruction loss, and beta times the KL sum."""

    loss: Array
    reconstruction: Array
    penalty: Array


class Keys(NamedTuple):
    """The PRNG keys of a seed, one for each use."""

    init: Key
    batches: Key
    noise: Key
    layers: Key


def keys_of(key: Key) -> Keys:
    """Split a seed's key into one for each use."""
    return Keys(*(jax.random.fold_in(key, i) for i in range(len(Keys._fields))))


def init_state(key: Key, config: Config, hyper: Hyperparameters, d_in: int) -> TrainState:
    """The state before the first step; `key` draws the parameters."""
    params = autoencoder.init(key, config, d_in)
    opt_state = make_optimizer(config, hyper, 0.0).init(params)
    return TrainState(params, opt_state, sparsity.init(hyper.rho, config), jnp.int32(0), jnp.int32(-1))


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    axis_name: str | None = None,
    noise_key: Key | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on one batch.

    The penalty's value and slope use rho_hat as it stood before this batch; afterwards
    rho_hat <- lambda rho_hat + (1 - lambda) mean_i h_i. A step whose loss, or the norm of whose gradients or
    updates, is not finite is not taken, and no later one is.

    Args:
        config: static settings.
        state: state before the step.
        batch: samples, [batch, d_in]; this device's share of them under data parallelism, which L-BFGS does not do.
        hyper: swept settings, scalars.
        axis_name: named axis over which the batch is split (vmap, shard_map or pmap); None for a whole batch.
        noise_key: PRNG key of this step's corruption; may be None where `config.corruption` is none.

    Returns:
        (state after the step, Metrics of the batch before it); the same on every device of the axis.
    """
    running_mean = sparsity.estimate(state.sparsity, hyper.rho) if config.estimator == "ema" else None
    # L-BFGS learns the curvature of one fixed loss, which a rising beta or a falling k would take away from under it.
    fixed = config.optimizer == "lbfgs"
    beta = hyper.beta if fixed else hyper.beta * warmup(state.step, config, hyper.beta_warmup)
    k = hyper.k if fixed or hyper.k is None else units_kept(state.step, config, hyper)
    corrupted = None
    if fixed and axis_name is not None:
        raise UserError("optimizer lbfgs takes the whole batch on one device: got a named axis; use adam or sgd")
    if config.corruption != "none":
        if noise_key is None:
            raise UserError(f"corruption {config.corruption} needs a noise_key: got none; see keys_of")
        corrupted = corrupt(noise_key, batch, config.corruption, hyper.noise, axis_name)

    def loss_of(params: Params) -> tuple[Array, Aux]:
        return objective(params, batch, config, hyper, beta, running_mean, axis_name, corrupted, k)

    if fixed:
        loss, aux = loss_of(state.params)
        # The line search ended here with this gradient; only before the first step is there none yet.
        _, gradients = optax.value_and_grad_from_state(lambda params: loss_of(params)[0])(
            state.params, state=state.opt_state
        )
    else:
        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics = Metrics(loss, aux.reconstruction, aux.penalty)
    if axis_name is not None:
        gradients, metrics = jax.lax.pmean((gradients, metrics), axis_name)

    optimizer = make_optimizer(config, hyper, learning_rate(state.step, config, hyper))
    updates, opt_state = optimizer.update(
        gradients,
        state.opt_state,
        state.params,
        value=metrics.loss,
        grad=gradients,
        value_fn=lambda params: loss_of(params)[0],
    )
    params = jax.tree.map(lambda w, u: jnp.clip(w + u, -LARGEST, LARGEST), state.params, updates)
    running = sparsity.update(state.sparsity, aux.batch_mean, hyper.ema_decay)

    # Known before the parameters are, it selects in the pass over memory that adds the updates. Where only the addition
    # itself would leave float32, it stops at the largest number, from where the next loss is not finite.
    sizes = jnp.stack([metrics.loss, optax.tree.norm(gradients), optax.tree.norm(updates)])
    finite = jnp.all(jnp.isfinite(sizes))
    alive = state.diverged_at < 0
    taken = TrainState(params, opt_state, running, state.step + 1, state.diverged_at)
    kept = dataclasses.replace(state, diverged_at=jnp.where(alive, state.step, state.diverged_at))
    return jax.tree.map(lambda new, old: jnp.where(alive & finite, new, old), taken, kept), metrics


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
    return jax.lax.scan(window, init_lane(key, config, hyper, train.shape[1]), bounds)

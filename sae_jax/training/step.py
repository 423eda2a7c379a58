"""One training step: a pure function over an explicit state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from sae_jax.data.corruption import corrupt
from sae_jax.models import autoencoder
from sae_jax.models import memory as sparsity
from sae_jax.models.losses import Aux, objective
from sae_jax.models.memory import SparsityState
from sae_jax.models.types import Batch, Hyperparameters, Key, Params
from sae_jax.settings import LARGEST, UserError
from sae_jax.training.config import Config
from sae_jax.training.optimizers import learning_rate, make_optimizer, units_kept, warmup


@struct.dataclass
class TrainState:
    """Everything that training one lane carries from step to step.

    Attributes:
        params: parameter pytree.
        opt_state: optax state.
        sparsity: running mean activation.
        step: steps taken, int32.
        diverged_at: step that was not taken, see `train_step`, int32; -1 where all were. From there on the lane is
            frozen with its last finite parameters.
    """

    params: Params
    opt_state: Any
    sparsity: SparsityState
    step: Array
    diverged_at: Array


class Metrics(NamedTuple):
    """Terms of the training loss: their sum with weight decay, the reconstruction loss, and beta times the KL sum."""

    loss: Array
    reconstruction: Array
    penalty: Array


class Searched(NamedTuple):
    """What L-BFGS searches over: parameters, and zeros along which the loss rises by what it computes on the way.

    So the gradient that the line search keeps holds the terms of the loss where it ended: there is no forward pass for
    them alone. The search never moves along the zeros.
    """

    params: Params
    aux: Aux


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
    trained = ravel_pytree(Searched(params, _no_aux(config)))[0] if config.optimizer == "lbfgs" else params
    opt_state = make_optimizer(config, hyper, 0.0).init(trained)
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
    updates (with Adam, the square of whose learning rate), is not finite is not taken, and no later one is.

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

    rate = learning_rate(state.step, config, hyper)
    optimizer = make_optimizer(config, hyper, rate)
    if fixed:
        loss, aux, gradients, search = _line_search(optimizer, loss_of, state, config)
    else:
        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics = Metrics(loss, aux.reconstruction, aux.penalty)
    if axis_name is not None:
        gradients, metrics = jax.lax.pmean((gradients, metrics), axis_name)

    update = search if fixed else functools.partial(optimizer.update, gradients, state.opt_state, state.params)
    # No entry of Adam's direction is much above 1 (Kingma and Ba 2015, section 2.1), so that its step is known to be
    # finite before it is computed, in a branch that runs only then: nothing is selected, and no old state is kept.
    found = None if config.optimizer == "adam" else update()
    size = jnp.square(rate) if found is None else optax.tree.norm(found[0])
    finite = jnp.all(jnp.isfinite(jnp.stack([metrics.loss, optax.tree.norm(gradients), size])))
    alive = state.diverged_at < 0

    def taken() -> TrainState:
        updates, opt_state = found or update()
        # Where the addition leaves float32, it stops at the largest number, from where the next loss is not finite.
        params = jax.tree.map(lambda w, u: jnp.clip(w + u, -LARGEST, LARGEST), state.params, updates)
        running = sparsity.update(state.sparsity, aux.batch_mean, hyper.ema_decay)
        return TrainState(params, opt_state, running, state.step + 1, state.diverged_at)

    def kept() -> TrainState:
        return dataclasses.replace(state, diverged_at=jnp.where(alive, state.step, state.diverged_at))

    return jax.lax.cond(alive & finite, taken, kept), metrics


def _line_search(
    optimizer: optax.GradientTransformationExtraArgs,
    loss_of: Callable[[Params], tuple[Array, Aux]],
    state: TrainState,
    config: Config,
) -> tuple[Array, Aux, Params, Callable[[], tuple[Params, Any]]]:
    """L-BFGS on the loss as a function of one flat `Searched`: as a pytree, its small operations take twice as long.

    Returns:
        (loss, what it computed on the way, and gradients where the state is, and what finds updates and the state of
        the optimizer after them).
    """
    start, rebuild = ravel_pytree(Searched(state.params, _no_aux(config)))

    def cost(at: Array) -> Array:
        params, along = rebuild(at)
        loss, aux = loss_of(params)
        return loss + optax.tree.vdot(along, jax.lax.stop_gradient(aux))

    # The line search ended here with this slope; only before the first step is there none yet.
    loss, slope = optax.value_and_grad_from_state(cost)(start, state=state.opt_state)
    gradients, aux = rebuild(slope)

    def search() -> tuple[Params, Any]:
        still, _ = ravel_pytree(Searched(gradients, _no_aux(config)))
        moved, opt_state = optimizer.update(still, state.opt_state, start, value=loss, grad=slope, value_fn=cost)
        return rebuild(moved).params, opt_state

    return loss, aux, gradients, search


def _no_aux(config: Config) -> Aux:
    return Aux(jnp.float32(0), jnp.float32(0), jnp.zeros(config.d_hidden, jnp.float32))

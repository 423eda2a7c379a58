"""Config -> optax transformation, and the schedules of learning rate, beta and k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sae_jax.models.types import Hyperparameters, Scalar, Tree
from sae_jax.training.config import Config

LINE_SEARCH_STEPS = 20


def warmup(step: Scalar | Array, config: Config, fraction: Scalar) -> Float[Array, ""]:
    """Linear warm-up factor over a fraction w of all T steps: min(1, (t + 1) / (w T)), 1 throughout where w is 0."""
    return jnp.minimum(1.0, (step + 1) / jnp.maximum(fraction * config.steps, 1.0))


def learning_rate(step: Scalar | Array, config: Config, hyper: Hyperparameters) -> Float[Array, ""]:
    """Learning rate of a step: linear warm-up to the full rate, then half a cosine down to its final fraction.

        lr * min(1, (t + 1) / (w T)) * (f + (1 - f) (1 + cos(pi p)) / 2),  p = max(0, t - w T) / (T - w T)

    Args:
        step: t, from 0.
        config: steps T is read.
        hyper: learning_rate lr, warmup w and final_learning_rate f are read.

    Source: Loshchilov and Hutter 2017, equation 5 (one cycle).
    """
    start = hyper.warmup * config.steps
    done = jnp.clip((step - start) / jnp.maximum(config.steps - start, 1.0), 0.0, 1.0)
    cosine = hyper.final_learning_rate + (1 - hyper.final_learning_rate) * 0.5 * (1 + jnp.cos(jnp.pi * done))
    return hyper.learning_rate * warmup(step, config, hyper.warmup) * cosine


def units_kept(step: Scalar | Array, config: Config, hyper: Hyperparameters) -> Float[Array, ""]:
    """Units kept at a step: all n at first, falling linearly to k, n + (k - n) min(1, (t + 1) / (w T)), rounded.

    From the first step on, a small k would leave alive only the units that happened to start large.

    Args:
        step: t, from 0.
        config: d_hidden n and steps T are read.
        hyper: k, where 0 is n, and k_warmup w are read.

    Source: Makhzani and Frey 2013, section 4.2.1 ("scheduling of the sparsity level").
    """
    fallen = warmup(step, config, hyper.k_warmup)
    return jnp.round(config.d_hidden + jnp.where(hyper.k > 0, hyper.k - config.d_hidden, 0) * fallen)


def warmed_up(step: Scalar | Array, config: Config, hyper: Hyperparameters) -> Bool[Array, ""]:
    """Whether the warm-ups of the learning rate, of beta and of k have ended; L-BFGS has none.

    Before that, the loss rises with beta and falls with the learning rate, whatever the lane does.
    """
    if config.optimizer == "lbfgs":
        return jnp.bool_(True)
    longest = jnp.maximum(hyper.warmup, hyper.beta_warmup)
    if hyper.k is not None:
        longest = jnp.maximum(longest, jnp.where(hyper.k > 0, hyper.k_warmup, 0))
    return step >= config.steps * longest


def make_optimizer(config: Config, hyper: Hyperparameters, rate: Scalar) -> optax.GradientTransformationExtraArgs:
    """The optimizer of one step; its state does not depend on the learning rate, so that this may be traced.

    Args:
        config: optimizer is read.
        hyper: clip_norm and momentum are read; neither by L-BFGS.
        rate: learning rate of this step.

    Returns:
        A transformation whose update takes, beside gradients, state and parameters, the value of the loss, its
        gradient and the loss itself as `value`, `grad` and `value_fn`.
    """
    if config.optimizer == "lbfgs":
        return make_lbfgs()
    limit = jnp.where(hyper.clip_norm > 0, hyper.clip_norm, jnp.inf)
    direction = optax.scale_by_adam() if config.optimizer == "adam" else optax.trace(decay=hyper.momentum)
    transformation = optax.chain(_clip_by_global_norm(limit), direction, optax.scale_by_learning_rate(rate))
    return optax.with_extra_args_support(transformation)


def _clip_by_global_norm(limit: Array) -> optax.GradientTransformation:
    """What optax.clip_by_global_norm does, by one factor: optax divides every entry, which costs a pass over memory."""

    def clipped(gradients: Any, _: Any) -> Any:
        return optax.tree.scale(jnp.minimum(1.0, limit / optax.tree.norm(gradients)), gradients)

    return optax.stateless(clipped)


def make_lbfgs() -> optax.GradientTransformationExtraArgs:
    """L-BFGS that searches along its direction for a step that meets the strong Wolfe conditions.

    The search tries the full step first: optax's default, the step of the iteration before, stalls on autoencoders.
    """
    return optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(LINE_SEARCH_STEPS, initial_guess_strategy="one"))


def minimize(loss: Callable[[Tree], Array], start: Tree, steps: int, tolerance: float = 1e-5) -> Tree:
    """Minimise a smooth loss by full-batch L-BFGS: pure, and may be mapped over lanes.

    Args:
        loss: pytree -> scalar.
        start: where to begin.
        steps: iterations at most.
        tolerance: ends where no entry of the gradient is larger than this.

    Returns:
        The last iterate.
    """
    optimizer = make_lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def unfinished(carry: tuple[Tree, Any, Array, Array]) -> Array:
        return (carry[2] < steps) & (carry[3] > tolerance)

    def step(carry: tuple[Tree, Any, Array, Array]) -> tuple[Tree, Any, Array, Array]:
        params, state, taken, _ = carry
        value, gradient = value_and_gradient(params, state=state)
        updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state, taken + 1, optax.tree.norm(gradient, ord=jnp.inf)

    begin = (start, optimizer.init(start), jnp.int32(0), jnp.float32(jnp.inf))
    return jax.lax.while_loop(unfinished, step, begin)[0]

"""Optimizers by name, through optax, and the schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sae_jax.models.base import Params, Scalar, ramp
from sae_jax.training import lbfgs
from sae_jax.training.lbfgs import LossAndRest, Proposal


class Optimizer(NamedTuple):
    """An optimizer of the engine.

    Attributes:
        init: (parameters, training settings, f() -> zeros like what the loss returns beside its value) -> state.
        propose: (loss, parameters, state, training settings, learning rate, f(gradient) -> gradient) -> Proposal.
        full_batch: whether it minimises one fixed loss of all samples, without batches, schedules or several devices.
        steps: how many it takes where their number is not given; None is the setting's own default.
    """

    init: Callable[[Params, Any, Callable[[], Any]], Any]
    propose: Callable[[LossAndRest, Params, Any, Any, Scalar, Callable[[Params], Params]], Proposal]
    full_batch: bool = False
    steps: int | None = None


def learning_rate(step: Scalar | Array, training: Any) -> Float[Array, ""]:
    """Learning rate of a step: linear warm-up to the full rate, then half a cosine down to its final fraction.

        lr * min(1, (t + 1) / (w T)) * (f + (1 - f) (1 + cos(pi p)) / 2),  p = max(0, t - w T) / (T - w T)

    Args:
        step: t, from 0.
        training: steps T, learning_rate lr, warmup w and final_learning_rate f are read.

    Source: Loshchilov and Hutter 2017, equation 5 (one cycle).
    """
    start = training.warmup * training.steps
    done = jnp.clip((step - start) / jnp.maximum(training.steps - start, 1.0), 0.0, 1.0)
    cosine = training.final_learning_rate + (1 - training.final_learning_rate) * 0.5 * (1 + jnp.cos(jnp.pi * done))
    return training.learning_rate * ramp(step, training.steps, training.warmup) * cosine


def _first_order(direction: Callable[[Scalar], optax.GradientTransformation], bounded: bool) -> Optimizer:
    """An optimizer of minibatches, whose state does not depend on its settings, so that these may be traced.

    Args:
        direction: momentum -> transformation of clipped gradients to the direction that is descended.
        bounded: whether no entry of the direction is much above 1 (Adam's: Kingma and Ba 2015, section 2.1), so that
            its step is known to be finite before it is computed, in a branch that runs only then: nothing is selected,
            and no old state is kept.
    """

    def transformation(clip_norm: Scalar, momentum: Scalar, rate: Scalar) -> optax.GradientTransformation:
        limit = jnp.where(clip_norm > 0, clip_norm, jnp.inf)
        return optax.chain(_clip_by_global_norm(limit), direction(momentum), optax.scale_by_learning_rate(rate))

    def init(params: Params, training: Any, zeros: Callable[[], Any]) -> Any:
        return transformation(0.0, 0.0, 0.0).init(params)

    def propose(
        loss_of: LossAndRest, params: Params, state: Any, training: Any, rate: Scalar, prepared: Callable[..., Params]
    ) -> Proposal:
        (loss, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        gradients = prepared(gradients)

        def update() -> tuple[Params, Any]:
            return transformation(training.clip_norm, training.momentum, rate).update(gradients, state, params)

        if bounded:
            return Proposal(loss, rest, gradients, jnp.square(rate), update)
        computed = update()
        return Proposal(loss, rest, gradients, optax.tree.norm(computed[0]), lambda: computed)

    return Optimizer(init, propose)


def forgotten(state: Any, params: Params, fresh: Mapping[str, Array]) -> Any:
    """An optimizer's state with its averages at 0 where parameters begin anew.

    Args:
        state: after the step; averages are pytrees like the parameters.
        params: the parameters.
        fresh: which of their values are new, by name.

    Source: Bricken et al. 2023, appendix "Neuron resampling", step 5.
    """

    def like_params(part: Any) -> bool:
        return isinstance(part, dict) and part.keys() == params.keys()

    def forget(part: Any) -> Any:
        if not like_params(part):
            return part
        return part | {name: jnp.where(values, 0, part[name]) for name, values in fresh.items()}

    return jax.tree.map(forget, state, is_leaf=like_params)


def _clip_by_global_norm(limit: Array) -> optax.GradientTransformation:
    """What optax.clip_by_global_norm does, by one factor: optax divides every entry, which costs a pass over memory."""

    def clipped(gradients: Any, _: Any) -> Any:
        return optax.tree.scale(jnp.minimum(1.0, limit / optax.tree.norm(gradients)), gradients)

    return optax.stateless(clipped)


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": _first_order(lambda momentum: optax.scale_by_adam(), bounded=True),
    "sgd": _first_order(lambda momentum: optax.trace(decay=momentum), bounded=False),
    # As many as UFLDL's exercises take.
    "lbfgs": Optimizer(lbfgs.init, lbfgs.propose, full_batch=True, steps=400),
}

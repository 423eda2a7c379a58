"""Full-batch L-BFGS with a line search, through optax: as an optimizer of lanes, and to minimise any smooth loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from sae_jax.models.base import Params, Scalar, Tree

LINE_SEARCH_STEPS = 20

# parameters -> (loss, whatever else is computed on the way).
LossAndRest: TypeAlias = Callable[[Params], tuple[Array, Any]]


class Proposal(NamedTuple):
    """A step that an optimizer proposes.

    Attributes:
        loss: before the step.
        rest: what the loss returned beside its value.
        gradients: before the step.
        size: a number that is finite where the step is.
        update: f() -> (what is added to the parameters, the optimizer's state afterwards).
    """

    loss: Array
    rest: Any
    gradients: Params
    size: Array
    update: Callable[[], tuple[Params, Any]]


class Searched(NamedTuple):
    """What the line search moves: parameters, and zeros along which the loss rises by what it computes on the way.

    So the gradient that the search keeps holds the terms of the loss where it ended: there is no forward pass for them
    alone. The search never moves along the zeros. All of it is one flat vector: as a pytree, its small operations take
    twice as long.
    """

    params: Params
    rest: Any


def optimizer() -> optax.GradientTransformationExtraArgs:
    """L-BFGS that searches along its direction for a step that meets the strong Wolfe conditions.

    The search tries the full step first: optax's default, the step of the iteration before, stalls on autoencoders.
    """
    return optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(LINE_SEARCH_STEPS, initial_guess_strategy="one"))


def init(params: Params, zeros: Callable[[], Any]) -> Any:
    """The optimizer's state before the first step.

    Args:
        params: parameters.
        zeros: f() -> zeros like what the loss returns beside its value.
    """
    return optimizer().init(ravel_pytree(Searched(params, zeros()))[0])


def propose(
    loss_of: LossAndRest, params: Params, state: Any, training: Any, rate: Scalar, prepared: Callable[..., Params]
) -> Proposal:
    """One iteration; the settings of the training, the learning rate and `prepared` are for other optimizers."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(loss_of, params)[1])
    start, rebuild = ravel_pytree(Searched(params, zeros))

    def cost(at: Array) -> Array:
        moved, along = rebuild(at)
        loss, rest = loss_of(moved)
        return loss + optax.tree.vdot(along, jax.lax.stop_gradient(rest))

    # The line search ended here with this slope; only before the first step is there none yet.
    loss, slope = optax.value_and_grad_from_state(cost)(start, state=state)
    gradients, rest = rebuild(slope)
    still, _ = ravel_pytree(Searched(gradients, zeros))
    step, after = optimizer().update(still, state, start, value=loss, grad=slope, value_fn=cost)
    updates = rebuild(step).params
    return Proposal(loss, rest, gradients, optax.tree.norm(updates), lambda: (updates, after))


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
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def unfinished(carry: tuple[Tree, Any, Array, Array]) -> Array:
        return (carry[2] < steps) & (carry[3] > tolerance)

    def step(carry: tuple[Tree, Any, Array, Array]) -> tuple[Tree, Any, Array, Array]:
        params, state, taken, _ = carry
        value, gradient = value_and_gradient(params, state=state)
        updates, state = optimizer().update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state, taken + 1, optax.tree.norm(gradient, ord=jnp.inf)

    begin = (start, optimizer().init(start), jnp.int32(0), jnp.float32(jnp.inf))
    return jax.lax.while_loop(unfinished, step, begin)[0]

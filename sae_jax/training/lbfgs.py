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
# What minFunc, the optimizer of UFLDL's exercises, remembers; and where large parameters make it fewer.
MOST_PAIRS, FEWEST_PAIRS, PAIRS_BYTES = 100, 10, 2**30
PROBE_PAIRS = 10

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


def optimizer(pairs: int) -> optax.GradientTransformationExtraArgs:
    """L-BFGS that searches along its direction for a step that meets the strong Wolfe conditions.

    The search tries the full step first: optax's default, the step of the iteration before, stalls on autoencoders.

    Args:
        pairs: how many of the last steps, each with the change of the gradient along it, it remembers.

    Source: Nocedal and Wright 2006, algorithms 7.4 and 7.5.
    """
    search = optax.scale_by_zoom_linesearch(LINE_SEARCH_STEPS, initial_guess_strategy="one")
    return optax.lbfgs(memory_size=pairs, linesearch=search)


def pairs_of(history_size: int, numbers: int) -> int:
    """How many pairs are remembered: the setting, or where that is 0 as many of 100 as 1 GiB holds, but at least 10.

    The same on every machine, so that results do not depend on its memory.

    Args:
        history_size: the setting.
        numbers: parameters of a lane.

    Source: Schmidt, minFunc, option Corr (100), which UFLDL's exercises call; Ng, UFLDL exercise "Sparse Autoencoder".
    """
    most = PAIRS_BYTES // (2 * 4 * numbers)
    return history_size or min(MOST_PAIRS, max(FEWEST_PAIRS, most))


def init(params: Params, training: Any, zeros: Callable[[], Any]) -> Any:
    """The optimizer's state before the first step.

    Args:
        params: parameters.
        training: history_size is read.
        zeros: f() -> zeros like what the loss returns beside its value.
    """
    start = ravel_pytree(Searched(params, zeros()))[0]
    return optimizer(pairs_of(training.history_size, start.size)).init(start)


def propose(
    loss_of: LossAndRest, params: Params, state: Any, training: Any, rate: Scalar, prepared: Callable[..., Params]
) -> Proposal:
    """One iteration; the learning rate and `prepared` are for other optimizers."""
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
    pairs = pairs_of(training.history_size, start.size)
    step, after = optimizer(pairs).update(still, state, start, value=loss, grad=slope, value_fn=cost)
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
    value_and_gradient, algorithm = optax.value_and_grad_from_state(loss), optimizer(PROBE_PAIRS)

    def unfinished(carry: tuple[Tree, Any, Array, Array]) -> Array:
        return (carry[2] < steps) & (carry[3] > tolerance)

    def step(carry: tuple[Tree, Any, Array, Array]) -> tuple[Tree, Any, Array, Array]:
        params, state, taken, _ = carry
        value, gradient = value_and_gradient(params, state=state)
        updates, state = algorithm.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state, taken + 1, optax.tree.norm(gradient, ord=jnp.inf)

    begin = (start, algorithm.init(start), jnp.int32(0), jnp.float32(jnp.inf))
    return jax.lax.while_loop(unfinished, step, begin)[0]

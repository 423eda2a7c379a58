"""What a model carries from step to step beside its parameters: the running mean activation rho_hat of every unit."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models.base import Scalar, UnitMeans


@struct.dataclass
class SparsityState:
    """Exponential moving average of the batch means.

    Attributes:
        average: the raw average, [d_hidden].
        start_weight: how much weight the arbitrary starting value 0 still has; 0 when the average starts at rho.
    """

    average: Array
    start_weight: Array


def start(rho: Scalar, d_hidden: int, at: str) -> SparsityState:
    """The average before the first batch: at "rho", or at "zero" with the bias remembered."""
    rho = jnp.asarray(rho, jnp.float32)
    if at == "rho":
        return SparsityState(jnp.full(d_hidden, rho), jnp.zeros_like(rho))
    return SparsityState(jnp.zeros(d_hidden, jnp.float32), jnp.ones_like(rho))


def update(state: SparsityState, batch_mean: UnitMeans, decay: Scalar) -> SparsityState:
    """Take in one batch: average <- lambda * average + (1 - lambda) * batch_mean.

    Args:
        state: the average so far.
        batch_mean: mean activity of each unit over the (global) batch, [d_hidden].
        decay: lambda, in [0, 1).

    Source: Ng, CS294A notes, section 3 (the estimate); Kingma and Ba 2015, section 3 (the bias correction).
    """
    return SparsityState(decay * state.average + (1 - decay) * batch_mean, decay * state.start_weight)


def estimate(state: SparsityState, rho: Scalar) -> Float[Array, " d_hidden"]:
    """rho_hat = average / (1 - start_weight), [d_hidden]; before the first batch of a start at 0 it is rho."""
    empty = state.start_weight == 1
    return jnp.where(empty, rho, state.average / jnp.where(empty, 1.0, 1 - state.start_weight))

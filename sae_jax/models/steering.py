"""A coefficient that is steered until codes have the number of active units that a user asks for."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models.base import Scalar

# Of the running mean of L0; what the coefficient's logarithm takes of log(L0 / target), and of its change, a step.
DECAY, GAIN, DAMPING = 0.9, 0.003, 1.0


@struct.dataclass
class Steering:
    """A coefficient under control.

    Attributes:
        log_coefficient: its logarithm, a scalar.
        l0: running mean of the number of active units per sample, a scalar.
    """

    log_coefficient: Array
    l0: Array


def start(coefficient: Scalar, l0: Scalar) -> Steering:
    """Before the first batch: the coefficient as it is set, and codes as dense as they start."""
    return Steering(jnp.log(jnp.maximum(jnp.asarray(coefficient, jnp.float32), 1e-8)), jnp.asarray(l0, jnp.float32))


def coefficient(state: Steering) -> Float[Array, ""]:
    """The coefficient as it stands."""
    return jnp.exp(state.log_coefficient)


def update(state: Steering, l0: Scalar | Array, target: Scalar | Array, gain: float = GAIN) -> Steering:
    """Take in one batch: more weight where too many units are active, less where too few.

        log c <- log c + gain e + (e - e'),  e = log(L0 / target), e' the step before's, L0 a running mean of decay .9

    The second part takes weight away as soon as L0 falls, so that the coefficient does not run away in the time that
    codes take to follow it.

    Args:
        state: before the batch.
        l0: mean number of active units of the whole batch.
        target: asked for, > 0.
        gain: share of the error by which the logarithm moves at a step.
    """
    mean = DECAY * state.l0 + (1 - DECAY) * l0
    # Codes that are all 0 say only that the coefficient is far too large.
    error, before = (jnp.log(jnp.maximum(value, 1e-3) / target) for value in (mean, state.l0))
    return Steering(state.log_coefficient + gain * error + DAMPING * (error - before), mean)

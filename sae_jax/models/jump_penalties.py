"""What holds L0 of JumpReLU dictionaries down, a function by mode.

    step        l0 mean_i sum_j H(z_ij - theta_j)
    tanh        l0 mean_i sum_j tanh(4 f_ij ||Wd_j||)
    quadratic   l0 (2 / L) mean_i (L0_i - L)^2,  L the target L0

In mode step a target L0 puts w V (L0 / L - 1)^2 in place of the penalty: L0 of the whole batch, V the batch's mean
||x - bd||^2, and w rising from target_weight to 100 times as much, so that codes come near it first and to it at last.

Each is of a batch's codes f and gates H, [batch, d_hidden], and of its weight l0 as it has risen so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.models import rows
from sae_jax.models.base import Codes, Params, Scalar, Step
from sae_jax.settings import UserError

TANH_SCALE = 4.0
TARGET_WEIGHT_GROWTH = 100.0
# The thresholds' learning rate with 32 inputs. With 256 it would leave targets of 8 and 16 at 10.8 and 14.8.
RATE, INPUTS = 5.0, 32


def step_penalty(params: Params, codes: Codes, gates: Array, weight: Scalar, step: Step, s: Any) -> Array:
    """L0 through its gates, or the square of how far that of the whole batch misses its target.

    Source: Rajamanoharan et al. 2024b, "Jumping ahead" (without a target).
    """
    local = jnp.mean(jnp.sum(gates, axis=1))
    if s.target_l0 is None:
        return weight * local
    target = jnp.maximum(s.target_l0, 1e-3)
    # The square's value and slope are those of the whole batch; only its own samples' gates are differentiated.
    miss = step.across.mean(local) / target - 1
    square = jnp.square(miss) + 2 * miss * (local - jax.lax.stop_gradient(local)) / target
    variance = step.across.mean(jnp.mean(jnp.sum(jnp.square(step.target - params["decoder_bias"][None]), axis=1)))
    steered = s.target_weight * TARGET_WEIGHT_GROWTH ** step.ramp(1.0) * variance * square
    return jnp.where(s.target_l0 > 0, steered, weight * local)


def tanh_penalty(params: Params, codes: Codes, gates: Array, weight: Scalar, step: Step, s: Any) -> Array:
    """A smooth count of the active units, from codes times the norms of their rows.

    Source: Anthropic, "Circuits updates", January 2025.
    """
    # Else differentiation would hold its slopes in float32.
    count = _tanh_sum if s.activation_dtype == "float32" else jax.checkpoint(_tanh_sum)
    return weight * count(codes, rows.norms(params["decoder_weight"]))


def _tanh_sum(codes: Codes, norms: Array) -> Float[Array, ""]:
    return jnp.mean(jnp.sum(jnp.tanh(TANH_SCALE * codes * norms[None]), axis=1))


def quadratic_penalty(params: Params, codes: Codes, gates: Array, weight: Scalar, step: Step, s: Any) -> Array:
    """The square of how far L0 of every sample misses the target.

    Source: Gemma Scope 2, 2025.
    """
    miss = jnp.sum(gates, axis=1) - s.target_l0
    return weight * jnp.mean(jnp.square(miss)) * 2 / s.target_l0


PENALTIES: dict[str, Callable[[Params, Codes, Array, Scalar, Step, Any], Array]] = {
    "step": step_penalty,
    "tanh": tanh_penalty,
    "quadratic": quadratic_penalty,
}


def rates(params: Params, s: Any) -> dict[str, Scalar | Array]:
    """Thresholds that a target moves do so faster: a step moves z by all inputs, so by ||x||_1 <= sqrt(d_in) ||x||."""
    if s.target_l0 is None or s.penalty != "step":
        return {}
    by_inputs = RATE * math.sqrt(params["encoder_weight"].shape[1] / INPUTS)
    rate = jnp.where(s.threshold_rate > 0, s.threshold_rate, by_inputs)
    return {"threshold": jnp.where(s.target_l0 > 0, rate, 1.0)}


def check(s: Any) -> None:
    """Refuse mode quadratic without a target.

    Raises:
        UserError: there is none.
    """
    if s.penalty == "quadratic" and (s.target_l0 is None or not np.all(np.asarray(s.target_l0) > 0)):
        raise UserError("penalty quadratic needs a target: got target_l0 0; set target_l0, or use penalty step")

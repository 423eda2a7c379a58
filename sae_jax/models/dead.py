"""Units that no longer fire: one definition of dead, and the terms that bring them back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sae_jax.models.base import Across, Batch, Codes, Params
from sae_jax.models.linear import by_sample
from sae_jax.models.rows import norms
from sae_jax.models.selection import largest

# Counting stops here, far from the end of int32.
MOST_SILENT = 2**30


@struct.dataclass
class DeadUnits:
    """How long units have been silent.

    Attributes:
        silent: samples since each unit last fired, int32 [d_hidden].
    """

    silent: Int[Array, " d_hidden"]


def start(d_hidden: int) -> DeadUnits:
    """Before the first batch."""
    return DeadUnits(jnp.zeros(d_hidden, jnp.int32))


def update(state: DeadUnits, fired: Bool[Array, " d_hidden"], samples: Array) -> DeadUnits:
    """Take in one batch: 0 where a unit fired on a sample of it, else as many samples more.

    Args:
        state: before the batch.
        fired: whether each unit fired on any sample of the whole batch.
        samples: of the whole batch.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.4 and appendix A.
    """
    return DeadUnits(jnp.where(fired, 0, jnp.minimum(state.silent + samples, MOST_SILENT)))


@jax.custom_batching.custom_vmap
def any_lane(mask: Array) -> Array:
    """Whether any unit is in a mask, of any of the lanes that are batched: one answer, on which `lax.cond` is a branch.

    Args:
        mask: booleans, [d_hidden].
    """
    return jnp.any(mask)


@any_lane.def_vmap
def _any_of_batched(lanes: int, batched: list[bool], mask: Array) -> tuple[Array, bool]:
    return any_lane(mask), False


def auxiliary_error(
    params: Params,
    pre_activations: Codes,
    dead: Bool[Array, " d_hidden"],
    residual: Batch,
    across: Across,
    strength: Codes | None = None,
    factors: str = "float32",
) -> Float[Array, ""]:
    """AuxK: how badly dead units alone rebuild what the others leave, e = x - x_hat, over e's own variance.

        mean_i ||e_i - e_hat_i||^2 / mean_i ||e_i - mean(e)||^2,  e_hat = A Wd,  A the d_in / 2 strongest dead z

    No gradient goes to e. It is 0 where no unit is dead or nothing is left to rebuild.

    Args:
        params: decoder_weight is read.
        pre_activations: z, [batch, d_hidden].
        dead: which units are, [d_hidden].
        residual: e, [batch, d_in].
        across: statistics of the whole batch.
        strength: what units are chosen by, [batch, d_hidden]; None is z.
        factors: of products, as in `linear.product`.

    Source: Gao et al. 2024, section 2.4 and appendix A.2.
    """
    residual = jax.lax.stop_gradient(residual)
    centre = across.mean(jnp.mean(residual, axis=0))
    variance = across.mean(jnp.mean(jnp.sum(jnp.square(residual - centre[None]), axis=1)))
    error = _unexplained(params, pre_activations, dead, residual, strength, factors)
    defined = jnp.any(dead) & (variance > 0)
    return jnp.where(defined, error / jnp.where(defined, variance, 1), 0)


def auxiliary_error_in_full(
    params: Params,
    pre_activations: Codes,
    dead: Bool[Array, " d_hidden"],
    residual: Batch,
    across: Across,
    strength: Codes | None = None,
    factors: str = "float32",
) -> Float[Array, ""]:
    """AuxK as SAELens has it: min(1, dead units / (d_in / 2)) mean_i ||e_i - e_hat_i||^2, without variance.

    Arguments and e_hat are those of `auxiliary_error`; nothing of the whole batch is asked for.

    Source: SAELens 6.54.12, TopKTrainingSAE.
    """
    residual = jax.lax.stop_gradient(residual)
    error = _unexplained(params, pre_activations, dead, residual, strength, factors)
    share = jnp.minimum(1.0, jnp.sum(dead) / max(residual.shape[1] // 2, 1))
    return jnp.where(jnp.any(dead), share * error, 0)


def _unexplained(
    params: Params, pre_activations: Codes, dead: Array, residual: Batch, strength: Any, factors: str
) -> Array:
    """mean_i ||e_i - A_i Wd||^2, A the pre-activations of each sample's d_in / 2 strongest dead units, and 0."""
    by = pre_activations if strength is None else strength
    among = jnp.where(dead[None], jax.lax.stop_gradient(by), -jnp.inf)
    chosen = largest(among, max(residual.shape[1] // 2, 1)) & dead[None]
    rebuilt = by_sample(jnp.where(chosen, pre_activations, 0), params["decoder_weight"], factors)
    return jnp.mean(jnp.sum(jnp.square(residual - rebuilt), axis=1))


def shortfall(
    params: Params, pre_activations: Codes, threshold: Float[Array, " d_hidden"], among: Bool[Array, " d_hidden"]
) -> Float[Array, ""]:
    """How far below their thresholds pre-activations lie: mean_i sum_j max(0, theta_j - z_ij) ||Wd_j||.

    Args:
        params: decoder_weight is read.
        pre_activations: z, [batch, d_hidden].
        threshold: theta, [d_hidden].
        among: the units that are summed over, [d_hidden].

    Source: Anthropic, "Circuits updates", January 2025 (pre-activation loss, over all units).
    """
    below = jnp.where(pre_activations < threshold[None], threshold[None] - pre_activations, 0)
    return jnp.sum(jnp.where(among, jnp.mean(below, axis=0) * norms(params["decoder_weight"]), 0))

"""The two penalties of SPINE, for codes in [0, 1]; both are means over units, as in the authors' code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Codes, Scalar, UnitMeans


def partial_sparsity(codes: Codes) -> Float[Array, ""]:
    """How far codes in [0, 1] are from both ends, mean over batch and units of h_ij (1 - h_ij).

    Source: Subramanian et al. 2018, "SPINE", equation 4 (partial sparsity loss); the mean over units is
    that of `SPINEModel._getPSLLoss` in github.com/harsh19/SPINE.
    """
    return jnp.mean(codes * (1 - codes))


def average_sparsity(codes: Codes, batch_mean: UnitMeans, target: Scalar) -> Float[Array, ""]:
    """How far mean activations exceed a target, mean over units of max(0, mean_i h_ij - target)^2.

    Args:
        codes: this device's, [batch, d_hidden]; what is differentiated.
        batch_mean: mean_i h_ij, of the whole batch, [d_hidden].
        target: the mean activation above which a unit counts.

    Source: Subramanian et al. 2018, "SPINE", equation 3 (average sparsity loss); the mean over units is
    that of `SPINEModel._getASLLoss` in github.com/harsh19/SPINE.
    """
    excess = jnp.maximum(batch_mean - target, 0)
    local = jnp.mean(codes, axis=0)
    # The square's value and slope are those of the whole batch; only its own samples' codes are differentiated.
    return jnp.mean(jnp.square(excess) + 2 * excess * (local - jax.lax.stop_gradient(local)))

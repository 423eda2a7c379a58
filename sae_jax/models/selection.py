"""The k largest pre-activations of every sample, and which codes that choice left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sae_jax.models.base import Codes, Scalar

BITS = 32


def largest(pre_activations: Codes, k: Scalar | Array) -> Bool[Array, "batch d_hidden"]:
    """Which pre-activations are among the k largest of their sample, [batch, d_hidden]; k may be traced.

    `lax.top_k` needs a k that is fixed when the program is compiled. Here the k-th largest value is found bit by bit,
    as the largest number that at least k values reach, so that one program serves every k. Equal values stay together.

    Args:
        pre_activations: [batch, d_hidden].
        k: how many to keep, >= 1; d_hidden and more keep all.
    """
    bits = jax.lax.bitcast_convert_type(jnp.asarray(pre_activations, jnp.float32), jnp.uint32)
    # Floats in the order of unsigned numbers: the sign bit is flipped, and all others of negative ones.
    top = jnp.uint32(1 << BITS - 1)
    ordered = jnp.where(bits & top, ~bits, bits | top)

    def next_bit(i: Array, threshold: Array) -> Array:
        tried = threshold | (top >> i.astype(jnp.uint32))
        enough = jnp.sum(ordered >= tried[:, None], axis=1) >= jnp.minimum(k, ordered.shape[1])
        return jnp.where(enough, tried, threshold)

    threshold = jax.lax.fori_loop(0, BITS, next_bit, jnp.zeros(ordered.shape[0], jnp.uint32))
    return ordered >= threshold[:, None]


def dropped(codes: Codes) -> Bool[Array, "batch d_hidden"]:
    """Which codes a choice of the largest left out: those that are exactly 0."""
    return jnp.asarray(codes) == 0

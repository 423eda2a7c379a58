"""Decoder rows as directions: their start, their norm, and what of them is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Key, Params, Scalar

Rows = Float[Array, "d_hidden d_in"]
# Rows of this norm or less have no direction.
SMALLEST_NORM = 1e-12
SOFT_COSINE = 0.8


def norms(rows: Rows) -> Float[Array, " d_hidden"]:
    """Norm of every row, [d_hidden]."""
    return jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))


def unit_rows(rows: Rows) -> Rows:
    """Rows scaled to norm 1; rows of norm 0 stay.

    Source: Bricken et al. 2023, "Towards monosemanticity", appendix "Advice for training sparse autoencoders".
    """
    return rows / jnp.maximum(norms(rows), SMALLEST_NORM)[:, None]


def tangential(rows: Rows, gradient: Rows) -> Rows:
    """The gradient without what would only lengthen the rows: g - (g . w / w . w) w, row by row.

    Source: Bricken et al. 2023, appendix "Advice for training sparse autoencoders".
    """
    along = (
        jnp.sum(rows * gradient, axis=1, keepdims=True)
        / jnp.maximum(jnp.sum(rows * rows, axis=1), SMALLEST_NORM**2)[:, None]
    )
    return gradient - along * rows


def directions(key: Key, d_in: int, d_hidden: int, norm: Scalar, encoder_norm: Scalar = 1.0) -> Params:
    """Decoder rows in directions drawn at random, the encoder's rows along them, biases 0.

    Args:
        key: PRNG key; lanes of one seed receive the same one.
        d_in, d_hidden: numbers of inputs and of hidden units.
        norm: of every decoder row.
        encoder_norm: of every encoder row.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.4 (the encoder's start); Anthropic,
    "Circuits updates", April 2024 (rows of both of norm .1).
    """
    rows = unit_rows(jax.random.normal(key, (d_hidden, d_in), jnp.float32))
    return {
        "encoder_weight": encoder_norm * rows,
        "encoder_bias": jnp.zeros(d_hidden, jnp.float32),
        "decoder_weight": norm * rows,
        "decoder_bias": jnp.zeros(d_in, jnp.float32),
    }


def near(rows: Rows, start: Rows, cosine: float = SOFT_COSINE) -> Rows:
    """Rows moved back, at equal norm, to where their cosine with their start is at least `cosine`.

    A row of a smaller cosine becomes c s + sqrt(1 - c^2) p, s the start's direction and p the direction of what is
    orthogonal to it, times the row's norm.

    Source: "Do sparse autoencoders beat random baselines?", arXiv 2602.14111 (soft-frozen decoder).
    """
    length, along = norms(rows)[:, None], unit_rows(start)
    direction = unit_rows(rows)
    cosines = jnp.sum(direction * along, axis=1, keepdims=True)
    across = unit_rows(direction - cosines * along)
    bounded = length * (cosine * along + jnp.sqrt(1 - cosine**2) * across)
    return jnp.where(cosines < cosine, bounded, rows)

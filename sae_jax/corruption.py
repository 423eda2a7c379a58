"""Noise on the inputs of a denoising autoencoder: the encoder sees the corrupted batch, the target is the clean one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sae_jax.types import Batch, Key, Scalar

CORRUPTIONS = ("none", "gaussian", "masking", "salt_and_pepper")


def corrupt(key: Key, x: Batch, kind: str, level: Scalar) -> Batch:
    """Corrupt a batch, every input independently.

        gaussian          x + level * N(0, 1)
        masking           0 with probability level, else x
        salt_and_pepper   0 or 1 with probability level / 2 each, else x

    One draw serves every level, so that lanes that differ in their level alone see the same noise, more or less of it.

    Args:
        key: PRNG key of this step.
        x: clean batch, [batch, d_in].
        kind: one of CORRUPTIONS.
        level: standard deviation in input units, or probability.

    Source: Vincent et al. 2010, section 3.3.
    """
    if kind == "none":
        return x
    if kind == "gaussian":
        return x + level * jax.random.normal(key, x.shape, x.dtype)
    chance = jax.random.uniform(key, x.shape, x.dtype)
    if kind == "masking":
        return jnp.where(chance < level, 0.0, x)
    return jnp.where(chance < level / 2, 0.0, jnp.where(chance < level, 1.0, x))

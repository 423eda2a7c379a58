"""Noise on the inputs of a denoising autoencoder: the encoder sees the corrupted batch, the target is the clean one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax.data.batches import device_rows
from sae_jax.models.base import Batch, Key, Scalar
from sae_jax.settings import UserError

CORRUPTIONS = ("none", "gaussian", "masking", "salt_and_pepper")
BY_CHANCE = CORRUPTIONS[2:]


def check_levels(kind: str, levels: Sequence[float] | np.ndarray) -> None:
    """Refuse levels of a corruption that are no probabilities where they must be.

    Raises:
        UserError: there is one.
    """
    if kind in BY_CHANCE and max(levels) > 1:
        raise UserError(
            f"noise must be a probability, in [0, 1], with corruption {kind}: got {max(levels):g}; "
            "use 1 or less, or corruption gaussian"
        )


def corrupt(key: Key, x: Batch, kind: str, level: Scalar, axis_name: str | None = None) -> Batch:
    """Corrupt a batch, every input independently.

        gaussian          x + level * N(0, 1)
        masking           0 with probability level, else x
        salt_and_pepper   0 or 1 with probability level / 2 each, else x

    One draw serves every level, so that lanes that differ in their level alone see the same noise, more or less of it.
    Every device of a named axis draws the noise of the whole batch and keeps its own rows, so that a sample's noise
    does not depend on the number of devices.

    Args:
        key: PRNG key of this step.
        x: clean batch, [batch, d_in].
        kind: one of CORRUPTIONS.
        level: standard deviation in input units, or probability.
        axis_name: named axis over which the batch is split; x is this device's share then.

    Source: Vincent et al. 2010, section 3.3.
    """
    if kind == "none":
        return x
    whole = (x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)), *x.shape[1:])
    if kind == "gaussian":
        return x + level * device_rows(jax.random.normal(key, whole, x.dtype), axis_name)
    chance = device_rows(jax.random.uniform(key, whole, x.dtype), axis_name)
    if kind == "masking":
        return jnp.where(chance < level, 0.0, x)
    return jnp.where(chance < level / 2, 0.0, jnp.where(chance < level, 1.0, x))

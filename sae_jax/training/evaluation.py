"""Measures of a trained autoencoder on held-out data."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.activations import ACTIVATIONS, OUTPUTS, activity, dropped
from sae_jax.models.autoencoder import decode_logits, encode
from sae_jax.models.losses import reconstruction_loss
from sae_jax.models.types import Batch, Params, Scalar
from sae_jax.training.config import Config


class Evaluation(NamedTuple):
    """Measures on held-out data: four scalars, and mean and maximum activity of every unit, [d_hidden]."""

    reconstruction: Array
    explained_variance: Array
    l0: Array
    dead_fraction: Array
    mean_activation: Array
    max_activation: Array


def explained_variance(x: Batch, reconstruction: Batch) -> Float[Array, ""]:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2: 1 is perfect, 0 is what predicting the mean gives.

    Args:
        x: samples, [batch, d_in]; their mean is taken per input.
        reconstruction: x_hat, [batch, d_in].
    """
    residual = jnp.sum(jnp.square(x - reconstruction))
    return 1 - residual / jnp.sum(jnp.square(x - jnp.mean(x, axis=0, keepdims=True)))


def evaluate(params: Params, x: Batch, config: Config, k: Scalar | Array | None = None) -> Evaluation:
    """Measure an autoencoder on held-out samples.

    reconstruction is the training loss's own term; l0 the mean number of units active on a sample; dead_fraction the
    share of units active on no sample; mean_activation and max_activation are taken over the samples, of the activity
    on the penalty's scale. What counts as active is `sae_jax.models.activations.ACTIVATIONS[...].active_rule`.

    Args:
        params: parameter pytree.
        x: held-out samples, [batch, d_in].
        config: activation, output and reconstruction_loss are read.
        k: units kept on a sample; 0 and None keep all.

    Source: Bricken et al. 2023 (L0, dead units: never active on the samples looked at).
    """
    activation = ACTIVATIONS[config.activation]
    codes = encode(params, x, config, k)
    logits = decode_logits(params, codes, config)
    scaled, active = activity(codes, config.activation, k is not None), activation.is_active(codes)
    if k is not None:
        active = active & ~dropped(codes)
    return Evaluation(
        reconstruction=reconstruction_loss(logits, x, config),
        explained_variance=explained_variance(x, OUTPUTS[config.output](logits)),
        l0=jnp.mean(jnp.sum(active, axis=1, dtype=jnp.float32)),
        dead_fraction=jnp.mean(~jnp.any(active, axis=0), dtype=jnp.float32),
        mean_activation=jnp.mean(scaled, axis=0),
        max_activation=jnp.max(scaled, axis=0),
    )

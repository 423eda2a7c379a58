"""Measures of a trained autoencoder on held-out data, declared: each is a variable with label and units."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Batch, Evaluated, Measure, Model, Params
from sae_jax.training.config import LaneSettings


def explained_variance(x: Batch, reconstruction: Batch) -> Float[Array, ""]:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2: 1 is perfect, 0 is what predicting the mean gives.

    Args:
        x: samples, [batch, d_in]; their mean is taken per input.
        reconstruction: x_hat, [batch, d_in].
    """
    residual = jnp.sum(jnp.square(x - reconstruction))
    return 1 - residual / jnp.sum(jnp.square(x - jnp.mean(x, axis=0, keepdims=True)))


def measures_of(model: Model, settings: Any) -> dict[str, Measure]:
    """Every measure of a model by name: those that every model has, and the model's own in place of them.

    Source: Bricken et al. 2023 (L0, dead units: never active on the samples looked at).
    """
    active = f"active: {model.active_rule(settings)}"
    common = {
        "reconstruction": Measure(
            lambda lane: jnp.mean(jnp.sum(jnp.square(lane.x - lane.reconstruction), axis=1)),
            "squared error on held-out data",
            "squared input units per sample",
        ),
        "explained_variance": Measure(
            lambda lane: explained_variance(lane.x, lane.reconstruction),
            "explained variance on held-out data; 0 is predicting the mean",
        ),
        "l0": Measure(
            lambda lane: jnp.mean(jnp.sum(lane.active, axis=1, dtype=jnp.float32)),
            f"mean number of active units per held-out sample; {active}",
            "unit",
        ),
        "dead_fraction": Measure(
            lambda lane: jnp.mean(~jnp.any(lane.active, axis=0), dtype=jnp.float32),
            f"share of units active on no held-out sample; {active}",
        ),
        "firing_rate": Measure(
            lambda lane: jnp.mean(lane.active, axis=0, dtype=jnp.float32),
            f"share of held-out samples on which a unit is active; {active}",
            dims=("unit",),
        ),
    }
    return common | model.measures(settings)


def encode(params: Params, x: Batch, settings: LaneSettings) -> Float[Array, "batch d_hidden"]:
    """Codes of samples [batch, d_in], as at inference, [batch, d_hidden]."""
    return settings.architecture.encode(params, x, settings.model)


def decode(params: Params, codes: Array, settings: LaneSettings) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes [batch, d_hidden], [batch, d_in]."""
    return settings.architecture.decode(params, codes, settings.model)


def evaluate(params: Params, x: Batch, settings: LaneSettings) -> dict[str, Array]:
    """Every measure of an autoencoder on held-out samples, by name.

    Args:
        params: of a finished lane.
        x: held-out samples, [batch, d_in].
        settings: its settings, scalars.
    """
    model = settings.architecture
    codes = encode(params, x, settings)
    lane = Evaluated(
        params=params,
        x=jnp.asarray(x),
        codes=codes,
        active=model.active(codes, settings.model),
        reconstruction=decode(params, codes, settings),
        settings=settings.model,
    )
    return {name: measure.compute(lane) for name, measure in measures_of(model, settings.model).items()}

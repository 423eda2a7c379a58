"""Measures of a trained autoencoder on held-out data, declared: each is a variable with label and units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.models.base import Batch, Evaluated, Measure, Model, Params
from sae_jax.settings import UserError
from sae_jax.training.config import LaneSettings, check_lane
from sae_jax.training.shapes import check_codes, check_rows, check_samples, split


def explained_variance(x: Batch, reconstruction: Batch) -> Float[Array, ""]:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2: 1 is perfect, 0 is what predicting the mean gives.

    NaN where all samples are equal, so that there is nothing to explain.

    Args:
        x: samples, [batch, d_in]; their mean is taken per input.
        reconstruction: x_hat, [batch, d_in].

    Returns:
        At most 1, and negative where x_hat is worse than the mean.
    """
    residual = jnp.sum(jnp.square(x - reconstruction))
    variance = jnp.sum(jnp.square(x - jnp.mean(x, axis=0, keepdims=True)))
    # The mean of equal numbers is not always one of them.
    return jnp.where(jnp.any(x != x[:1]) & (variance > 0), 1 - residual / variance, jnp.nan)


def measures_of(model: Model, settings: Any) -> dict[str, Measure]:
    """Every measure of a model by name: those that every model has, and the model's own in place of them.

    Source: Bricken et al. 2023 (L0, dead units: never active on the samples looked at).
    """
    active = f"active: {model.active_rule(settings)}"
    common = {
        "reconstruction": Measure(
            lambda lane: jnp.mean(jnp.sum(jnp.square(lane.x - lane.reconstruction), axis=1)),
            "squared error on held-out data",
            f"squared {'target' if model.outputs(settings) else 'input'} units per sample",
            lower_is_better=True,
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
            lower_is_better=True,
        ),
        "firing_rate": Measure(
            lambda lane: jnp.mean(lane.active, axis=0, dtype=jnp.float32),
            f"share of held-out samples on which a unit is active; {active}",
            dims=("unit",),
        ),
    }
    return common | model.measures(settings)


def encode(params: Params, x: Array | np.ndarray, settings: LaneSettings) -> Float[Array, "batch d_hidden"]:
    """Codes of samples [batch, d_in], as at inference, [batch, d_hidden].

    Raises:
        UserError: the samples are of another rank, width or kind.
    """
    x = check_samples(x, params, settings)
    return _complete(settings.architecture.encode, params, x, settings)


def decode(params: Params, codes: Array | np.ndarray, settings: LaneSettings) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes [batch, d_hidden], [batch, d_in].

    Raises:
        UserError: the codes are of another rank, width or kind.
    """
    codes = check_codes(codes, params, settings)
    return _complete(settings.architecture.decode, params, codes, settings)


def reconstruct(
    params: Params, x: Array | np.ndarray, codes: Array | np.ndarray, settings: LaneSettings
) -> Float[Array, "batch d_in"]:
    """Reconstruction of samples [batch, d_in] from their codes, with what passes by these, as wide as the decoder.

    Raises:
        UserError: the codes are of another rank, width or kind.
    """
    decoded = decode(params, codes, settings)
    beside = settings.architecture.bypass(params, jnp.asarray(x), settings.model)
    return decoded if beside is None else decoded + beside


def _complete(function: Callable[..., Array], params: Params, given: Any, settings: LaneSettings) -> Array:
    """A function of parameters, or UserError where it asks for one that is not there."""
    try:
        return function(params, given, settings.model)
    except KeyError as error:
        if not set(error.args) & (set(settings.architecture.parameters(settings.model)) - set(params)):
            raise  # It is none of a parameter.
        raise UserError(
            f"params must hold {error.args[0]}: got {', '.join(params)}; use those of a lane of these settings"
        ) from None


def evaluate(params: Params, x: Batch, settings: LaneSettings) -> dict[str, Array]:
    """Every measure of an autoencoder on held-out samples, by name.

    Args:
        params: of a finished lane.
        x: held-out samples, [batch, d_in], of a transcoder [batch, d_in + outputs].
        settings: its settings, scalars.
    """
    check_lane(settings)
    model = settings.architecture
    x, target = split(check_rows(x, params, settings), settings)
    codes = encode(params, x, settings)
    lane = Evaluated(
        params=params,
        x=jnp.asarray(target),
        codes=codes,
        active=model.active(codes, settings.model),
        reconstruction=reconstruct(params, x, codes, settings),
        settings=settings.model,
    )
    return {name: measure.compute(lane) for name, measure in measures_of(model, settings.model).items()}

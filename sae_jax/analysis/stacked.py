"""Stacked autoencoders: layers trained greedily, each on the codes of the one below, then fine-tuned together."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sae_jax.analysis.probes import probe_logits, probe_loss
from sae_jax.models.base import Batch, Key, Params
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import encode
from sae_jax.training.lane import final_params, fit
from sae_jax.training.lbfgs import minimize
from sae_jax.training.step import keys_of


def pretrain(
    settings: LaneSettings,
    first: Params,
    widths: tuple[int, ...],
    train: Float[Array | np.ndarray, "samples d_in"],
    heldout: Float[Array | np.ndarray, "heldout d_in"],
    key: Key,
) -> list[Params]:
    """Train further layers on top of a trained autoencoder, one after another, with its own settings.

    Args:
        settings: of every layer but for its width, swept ones scalars; above the first, where codes are not sigmoids,
            the output is linear, with the squared error in place of the Bernoulli loss.
        first: parameters of the first layer.
        widths: hidden units of the layers above it.
        train, heldout: samples that the first layer was trained on and watched by.
        key: the seed's key.

    Returns:
        Parameters of all layers, the first one's own among them.

    Source: Bengio et al. 2007, "Greedy layer-wise training of deep networks"; Ng, UFLDL, "Stacked autoencoders".
    """
    layers = [first]
    above: dict[str, Any] = {}
    if settings.model.activation != "sigmoid":  # Then the codes to be reconstructed are no probabilities.
        above["output"] = "linear"
        if settings.model.reconstruction_loss == "bernoulli":
            above["reconstruction_loss"] = "squared_error"
    for i, width in enumerate(widths, start=1):
        train, heldout = (encode(layers[-1], x, settings) for x in (train, heldout))
        model = dataclasses.replace(settings.model, d_hidden=width, **above)
        layer = dataclasses.replace(settings, model=model)
        lane, _ = fit(layer, train, heldout, jax.random.fold_in(keys_of(key).layers, i))
        layers.append(final_params(lane, layer))
    return layers


def encode_stack(layers: list[Params], x: Batch, settings: LaneSettings) -> Float[Array, "batch width"]:
    """Codes of the topmost layer, [batch, width]."""
    codes = jnp.asarray(x)
    for params in layers:
        codes = encode(params, codes, settings)
    return codes


def fine_tune(
    layers: list[Params],
    probe: Params,
    x: Batch,
    labels: Int[Array | np.ndarray, " batch"],
    settings: LaneSettings,
    decay: float,
    steps: int,
) -> tuple[list[Params], Params]:
    """Train all layers and the softmax layer on top of them end to end, by L-BFGS.

    Args:
        layers: pre-trained layers.
        probe: the softmax layer, trained on the topmost codes.
        x, labels: samples [batch, d_in] with class numbers [batch].
        settings: of every layer.
        decay: weight decay of the softmax layer; the layers below have none.
        steps: L-BFGS iterations at most.

    Returns:
        (all layers, the softmax layer).

    Source: Ng, UFLDL, "Fine-tuning stacked autoencoders".
    """

    def loss(network: tuple[list[Params], Params]) -> Array:
        return probe_loss(network[1], encode_stack(network[0], x, settings), labels, decay)

    # The decoders take no part: without them the optimizer's memory of past gradients is half as large.
    encoders = [{name: params[name] for name in params if name.startswith("encoder")} for params in layers]
    tuned, head = minimize(loss, (encoders, probe), steps)
    return [params | encoder for params, encoder in zip(layers, tuned, strict=True)], head


def stack_logits(
    layers: list[Params], probe: Params, x: Batch, settings: LaneSettings
) -> Float[Array, "batch classes"]:
    """Logits of the classes from the topmost codes, [batch, classes]."""
    return probe_logits(probe, encode_stack(layers, x, settings))

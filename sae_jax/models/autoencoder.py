"""The autoencoder over a parameter pytree: z = x We^T + be, h = sigma(z), x_hat = tau(h Wd + bd)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.activations import ACTIVATIONS, OUTPUTS, largest
from sae_jax.models.linear import decoder_product, encoder_product
from sae_jax.models.types import Batch, Codes, Key, Params, Scalar
from sae_jax.training.config import Config


def init(key: Key, config: Config, d_in: int) -> Params:
    """Draw initial parameters: weights ~ U(-r, r) with r = sqrt(6 / (d_in + d_hidden + 1)), biases 0.

    Args:
        key: PRNG key; lanes of one seed receive the same one.
        config: d_hidden and tied are read.
        d_in: number of inputs.

    Returns:
        The float32 parameter pytree (see `sae_jax.models.types.Params`).

    Source: Ng, UFLDL exercise "Sparse Autoencoder", step 1.
    """
    limit = (6.0 / (d_in + config.d_hidden + 1)) ** 0.5
    encoder_key, decoder_key = jax.random.split(key)
    params = {
        "encoder_weight": jax.random.uniform(
            encoder_key, (d_in, config.d_hidden), jnp.float32, minval=-limit, maxval=limit
        ).T,
        "encoder_bias": jnp.zeros(config.d_hidden, jnp.float32),
        "decoder_bias": jnp.zeros(d_in, jnp.float32),
    }
    if not config.tied:
        shape = (config.d_hidden, d_in)
        params["decoder_weight"] = jax.random.uniform(decoder_key, shape, jnp.float32, minval=-limit, maxval=limit)
    return params


def encode(params: Params, x: Batch, config: Config, k: Scalar | Array | None = None) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch: h = sigma(x We^T + be), and 0 but for the k largest pre-activations of a sample.

    Args:
        params: parameter pytree.
        x: samples, [batch, d_in].
        config: activation is read.
        k: units kept on a sample; 0 and None keep all.

    Returns:
        Codes, [batch, d_hidden].

    Encoding and decoding state their own gradients, so they are differentiated in reverse (`jax.grad`, `jax.vjp`,
    `jax.jacrev`), not forward.

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 2.
    """
    return codes_by_unit(params, x, config, k).T


def codes_by_unit(
    params: Params, x: Batch, config: Config, k: Scalar | Array | None = None
) -> Float[Array, "d_hidden batch"]:
    """What `encode` returns, unit by unit, each with its whole batch: what a training step computes on."""
    pre_activations = encoder_product(params["encoder_weight"], x, config.products) + params["encoder_bias"][:, None]
    codes = ACTIVATIONS[config.activation].apply(pre_activations)
    if k is None:
        return codes
    return jnp.where(largest(pre_activations.T, jnp.where(k > 0, k, len(codes))).T, codes, 0)


def decoder_weight(params: Params) -> Float[Array, "d_hidden d_in"]:
    """Decoder rows, one per hidden unit; the encoder's rows where the weights are tied."""
    return params.get("decoder_weight", params["encoder_weight"])


def decode_logits(params: Params, codes: Codes, config: Config) -> Float[Array, "batch d_in"]:
    """Reconstruction before the output activation: h Wd + bd, [batch, d_in]."""
    return logits_of_units(params, jnp.asarray(codes).T, config)


def logits_of_units(
    params: Params, codes: Float[Array, "d_hidden batch"], config: Config
) -> Float[Array, "batch d_in"]:
    """What `decode_logits` returns, from codes that lie unit by unit."""
    return decoder_product(codes, decoder_weight(params), config.products) + params["decoder_bias"][None, :]


def decode(params: Params, codes: Codes, config: Config) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes: x_hat = tau(h Wd + bd), [batch, d_in]."""
    return OUTPUTS[config.output](decode_logits(params, codes, config))

"""The autoencoder over a parameter pytree: z = x We + be, h = sigma(z), x_hat = tau(h Wd + bd)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.activations import ACTIVATIONS, OUTPUTS, largest
from sae_jax.config import Config
from sae_jax.types import Batch, Codes, Key, Params, Scalar


def init(key: Key, config: Config, d_in: int) -> Params:
    """Draw initial parameters: weights ~ U(-r, r) with r = sqrt(6 / (d_in + d_hidden + 1)), biases 0.

    Args:
        key: PRNG key; lanes of one seed receive the same one.
        config: d_hidden and tied are read.
        d_in: number of inputs.

    Returns:
        The float32 parameter pytree (see `sae_jax.types.Params`).

    Source: Ng, UFLDL exercise "Sparse Autoencoder", step 1.
    """
    limit = (6.0 / (d_in + config.d_hidden + 1)) ** 0.5
    encoder_key, decoder_key = jax.random.split(key)
    params = {
        "encoder_weight": jax.random.uniform(
            encoder_key, (d_in, config.d_hidden), jnp.float32, minval=-limit, maxval=limit
        ),
        "encoder_bias": jnp.zeros(config.d_hidden, jnp.float32),
        "decoder_bias": jnp.zeros(d_in, jnp.float32),
    }
    if not config.tied:
        shape = (config.d_hidden, d_in)
        params["decoder_weight"] = jax.random.uniform(decoder_key, shape, jnp.float32, minval=-limit, maxval=limit)
    return params


def encode(params: Params, x: Batch, config: Config, k: Scalar | Array | None = None) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch: h = sigma(x We + be), and 0 but for the k largest pre-activations of a sample.

    Args:
        params: parameter pytree.
        x: samples, [batch, d_in].
        config: activation is read.
        k: units kept on a sample; 0 and None keep all.

    Returns:
        Codes, [batch, d_hidden].

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 2.
    """
    # Units lie in memory one after another, each with its whole batch: a processor's vectors fit a batch of samples
    # better than an odd number of units, and units of lanes that share a batch line up to one wide product.
    by_unit = params["encoder_weight"].T @ x.T + params["encoder_bias"][:, None]
    codes = ACTIVATIONS[config.activation].apply(by_unit).T
    if k is None:
        return codes
    return jnp.where(largest(by_unit.T, jnp.where(k > 0, k, codes.shape[1])), codes, 0)


def decoder_weight(params: Params) -> Float[Array, "d_hidden d_in"]:
    """Decoder rows, one per hidden unit; the encoder's transpose where the weights are tied."""
    return params["decoder_weight"] if "decoder_weight" in params else params["encoder_weight"].T


def decode_logits(params: Params, codes: Codes) -> Float[Array, "batch d_in"]:
    """Reconstruction before the output activation: h Wd + bd, [batch, d_in]."""
    return jnp.asarray(codes) @ decoder_weight(params) + params["decoder_bias"][None, :]


def decode(params: Params, codes: Codes, config: Config) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes: x_hat = tau(h Wd + bd), [batch, d_in]."""
    return OUTPUTS[config.output](decode_logits(params, codes))

"""The autoencoder over a parameter pytree: z = x We + be, h = sigma(z), x_hat = tau(h Wd + bd)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.activations import ACTIVATIONS, OUTPUTS, largest
from sae_jax.config import Config
from sae_jax.types import Batch, Codes, Key, Params, Scalar, Tree


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

    Encoding and decoding state their own gradients, so they are differentiated in reverse (`jax.grad`, `jax.vjp`,
    `jax.jacrev`), not forward.

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 2.
    """
    return codes_by_unit(params, x, config, k).T


def codes_by_unit(
    params: Params, x: Batch, config: Config, k: Scalar | Array | None = None
) -> Float[Array, "d_hidden batch"]:
    """What `encode` returns, unit by unit, each with its whole batch.

    A training step computes on these: a processor's vectors fit a batch of samples better than an odd number of units,
    and the units of lanes that share a batch line up to one wide product.
    """
    across = _product(params["encoder_weight"], jnp.asarray(x).T, config.products, True)
    pre_activations = across + params["encoder_bias"][:, None]
    codes = ACTIVATIONS[config.activation].apply(pre_activations)
    if k is None:
        return codes
    return jnp.where(largest(pre_activations.T, jnp.where(k > 0, k, len(codes))).T, codes, 0)


def turned(tree: Tree, config: Config) -> Tree:
    """A pytree with every encoder_weight in it transposed, [..., d_hidden, d_in]; as it is where the weights are tied.

    So the encoder multiplies by it, and so its gradient comes: what is trained in this form, moments and all, is not
    turned round in memory at every step. Tied, the decoder needs it as it is.
    """

    def turn(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf.mT if path[-1] == jax.tree_util.DictKey("encoder_weight") else leaf

    return tree if config.tied else jax.tree_util.tree_map_with_path(turn, tree)


def decoder_weight(params: Params) -> Float[Array, "d_hidden d_in"]:
    """Decoder rows, one per hidden unit; the encoder's transpose where the weights are tied."""
    return params["decoder_weight"] if "decoder_weight" in params else params["encoder_weight"].T


def decode_logits(params: Params, codes: Codes, config: Config) -> Float[Array, "batch d_in"]:
    """Reconstruction before the output activation: h Wd + bd, [batch, d_in]."""
    return logits_of_units(params, jnp.asarray(codes).T, config)


def logits_of_units(
    params: Params, codes: Float[Array, "d_hidden batch"], config: Config
) -> Float[Array, "batch d_in"]:
    """What `decode_logits` returns, from codes that lie unit by unit."""
    return _product(codes, decoder_weight(params), config.products, False) + params["decoder_bias"][None, :]


def decode(params: Params, codes: Codes, config: Config) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes: x_hat = tau(h Wd + bd), [batch, d_in]."""
    return OUTPUTS[config.output](decode_logits(params, codes, config))


def _product(left: Array, right: Array, factors: str, by_column: bool) -> Array:
    """left^T @ right, [m, n], its factors rounded to bfloat16 where asked for; sums are never rounded.

    Args:
        left: [k, m], which is turned round in memory.
        right: [k, n].
        factors: float32 (as they are) or bfloat16.
        by_column: whether the right factor lies in memory column by column.
    """
    precision = jnp.result_type(left, right)
    return _along_rows(left.astype(precision), right.astype(precision), factors, by_column)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _along_rows(left: Array, right: Array, factors: str, by_column: bool) -> Array:
    """A product whose gradient states its own products, of factors that are rounded likewise.

    Differentiation by itself would multiply by some matrices as they lie, down their columns, which takes XLA's CPU
    backend up to three times as long; and it would round the gradient of the weight after it is summed.
    """
    return _along_rows_fwd(left, right, factors, by_column)[0]


def _along_rows_fwd(left: Array, right: Array, factors: str, by_column: bool) -> tuple[Array, tuple[Array, Array]]:
    precision = left.dtype
    left, right = _rounded(left, factors), _rounded(right, factors)
    # Behind a barrier, where XLA does not undo it by multiplying down the columns.
    turned = jax.lax.optimization_barrier(left.T)
    return jnp.matmul(turned, right, preferred_element_type=precision), (left, right)


def _along_rows_bwd(
    factors: str, by_column: bool, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    (left, right), precision = residuals, cotangent.dtype
    cotangent = _rounded(cotangent, factors)
    to_right = jnp.matmul(left, cotangent, preferred_element_type=precision)
    if by_column:
        across = jnp.matmul(cotangent, right.T, preferred_element_type=precision)
        return jax.lax.optimization_barrier(across).T, to_right
    return jnp.matmul(right, cotangent.T, preferred_element_type=precision), to_right


_along_rows.defvjp(_along_rows_fwd, _along_rows_bwd)


def _rounded(factor: Array, factors: str) -> Array:
    return factor.astype(jnp.bfloat16) if factors == "bfloat16" else factor

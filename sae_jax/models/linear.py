"""An encoder and a decoder of one matrix each: parameters, and products with every trick of layout and its reason.

The plain forms stand beside them in the tests: x W^T, h W and what differentiation makes of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Batch, Key, Parameter, Params, Scalar

TWO_LAYERS = {
    "encoder_weight": Parameter(("unit", "input"), "encoder rows We"),
    "encoder_bias": Parameter(("unit",), "encoder bias be"),
    "decoder_weight": Parameter(("unit", "input"), "decoder rows Wd (the encoder's where tied)"),
    "decoder_bias": Parameter(("input",), "decoder bias bd"),
}


def uniform_weights(key: Key, d_in: int, d_hidden: int, tied: bool = False) -> Params:
    """Draw initial parameters: weights ~ U(-r, r) with r = sqrt(6 / (d_in + d_hidden + 1)), biases 0.

    Args:
        key: PRNG key; lanes of one seed receive the same one.
        d_in, d_hidden: numbers of inputs and of hidden units.
        tied: whether the decoder's weight is the encoder's, and is left out.

    Returns:
        encoder_weight [d_hidden, d_in], encoder_bias [d_hidden], decoder_bias [d_in] and, unless the weights are tied,
        decoder_weight [d_hidden, d_in], float32.

    Source: Ng, UFLDL exercise "Sparse Autoencoder", step 1.
    """
    limit = (6.0 / (d_in + d_hidden + 1)) ** 0.5

    def drawn(key: Key, *shape: int) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, minval=-limit, maxval=limit)

    return _two_layers(key, d_in, d_hidden, drawn, tied)


def normal_weights(key: Key, d_in: int, d_hidden: int, std: Scalar | Array, tied: bool = False) -> Params:
    """Draw initial parameters: weights ~ N(0, std^2), biases 0; arguments and what is returned as `uniform_weights`.

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 4.2 (std .01).
    """

    def drawn(key: Key, *shape: int) -> Array:
        return std * jax.random.normal(key, shape, jnp.float32)

    return _two_layers(key, d_in, d_hidden, drawn, tied)


def _two_layers(key: Key, d_in: int, d_hidden: int, drawn: Callable[..., Array], tied: bool) -> Params:
    encoder_key, decoder_key = jax.random.split(key)
    params = {
        "encoder_weight": drawn(encoder_key, d_in, d_hidden).T,
        "encoder_bias": jnp.zeros(d_hidden, jnp.float32),
        "decoder_bias": jnp.zeros(d_in, jnp.float32),
    }
    return params if tied else params | {"decoder_weight": drawn(decoder_key, d_hidden, d_in)}


def encoder_product(weight: Float[Array, "d_hidden d_in"], x: Batch, factors: str) -> Float[Array, "d_hidden batch"]:
    """W x^T, unit by unit, each with its whole batch.

    A processor's vectors fit a batch of samples better than an odd number of units, and the units of lanes that share
    a batch line up to one wide product.

    Args:
        weight: encoder rows, [d_hidden, d_in].
        x: samples, [batch, d_in].
        factors: float32 (as they are) or bfloat16: what the factors of every product are rounded to.
    """
    return product(weight.T, jnp.asarray(x).T, factors, True)


def decoder_product(
    codes: Float[Array, "d_hidden batch"], weight: Float[Array, "d_hidden d_in"], factors: str
) -> Float[Array, "batch d_in"]:
    """h W, sample by sample, from codes that lie unit by unit.

    Args:
        codes: [d_hidden, batch].
        weight: decoder rows, [d_hidden, d_in].
        factors: as in `encoder_product`.
    """
    return product(codes, weight, factors, False)


def product(left: Array, right: Array, factors: str, by_column: bool) -> Array:
    """left^T @ right, [m, n], its factors rounded to bfloat16 where asked for; sums are never rounded.

    Args:
        left: [k, m], which is transposed in memory.
        right: [k, n].
        factors: float32 (as they are) or bfloat16.
        by_column: whether the right factor lies in memory column by column.
    """
    precision = jnp.result_type(left, right)
    return _along_rows(left.astype(precision), right.astype(precision), factors, by_column)


def by_sample(values: Batch | Array, weight: Array, factors: str) -> Array:
    """values @ weight, [batch, n], of factors that lie sample by sample; left to XLA where they are not rounded.

    Args:
        values: [batch, k].
        weight: [k, n].
        factors: as in `product`.
    """
    values = jnp.asarray(values)
    return values @ weight if factors == "float32" else product(values.T, weight, factors, False)


def widened(values: Array) -> Array:
    """What is to be summed, in float32 where it is stored in fewer bits."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


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
    transposed = jax.lax.optimization_barrier(left.T)
    return jnp.matmul(transposed, right, preferred_element_type=precision), (left, right)


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

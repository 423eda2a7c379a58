"""Nested prefixes (Matryoshka): the first m units reconstruct alone, for several m."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Batch, Codes, Params, Step
from sae_jax.models.linear import by_sample
from sae_jax.settings import UserError

DRAWN = "drawn"


def widths(text: str, d_hidden: int) -> tuple[int, ...]:
    """The units of every prefix, ascending, all of them last; a width up to 1 is a share of the units.

    Args:
        text: such as "64,128,256" or "1/16,1/8,1/4,1/2"; "" is all units alone.
        d_hidden: number of units.

    Raises:
        UserError: a word is no number, or widths do not nest.
    """
    sizes = []
    for word in filter(None, text.split(",")):
        number, _, divisor = word.partition("/")
        try:
            value = float(number) / float(divisor or 1)
        except (ValueError, ZeroDivisionError):
            raise UserError(
                f"prefixes must be numbers of units, or shares of them, between commas: got {text}; use 1/4,1/2"
            ) from None
        # Shares of few units may come to the same width, which then counts once.
        width = max(1, round(value * d_hidden)) if 0 < value < 1 else round(value)
        if not 1 <= width <= d_hidden or (value > 1 and width != value):
            raise UserError(
                f"prefixes must be whole numbers in [1, {d_hidden}], or shares of {d_hidden} units: got {word}; "
                "use 1/4,1/2"
            )
        sizes.append((value if value >= 1 else value * d_hidden, width))
    if any(first >= second for (first, _), (second, _) in itertools.pairwise(sizes)):
        raise UserError(f"prefixes must nest, each wider than the one before: got {text}; put them in order")
    return tuple(dict.fromkeys([*(width for _, width in sizes), d_hidden]))


def drawn(text: str) -> int:
    """How many prefixes are drawn at every step, as "drawn:5" says; 0 where they are fixed.

    Raises:
        UserError: the number is none.
    """
    name, _, number = text.partition(":")
    if name != DRAWN:
        return 0
    if not number.isdecimal() or not 1 <= int(number) <= 64:
        raise UserError(f"prefixes that are drawn must be from 1 to 64: got {text}; use drawn:5")
    return int(number)


def nested_errors(
    params: Params, codes: Codes, target: Batch, sizes: tuple[int, ...], factors: str = "float32"
) -> tuple[list[Float[Array, ""]], Float[Array, "batch d_in"]]:
    """Squared error of every prefix, mean_i ||x_i - x_hat_i,0:m||^2; together they cost one product.

    Args:
        params: decoder_weight and decoder_bias are read.
        codes: [batch, d_hidden].
        target: x, [batch, d_in].
        sizes: m, ascending.
        factors: of products, as in `linear.product`.

    Returns:
        (an error for each size, what the last one leaves of the target, [batch, d_in]).

    Source: Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders", equation 4.
    """
    errors, residual, begin = [], jnp.asarray(target - params["decoder_bias"][None]), 0
    for end in sizes:
        residual = residual - by_sample(codes[:, begin:end], params["decoder_weight"][begin:end], factors)
        errors.append(jnp.mean(jnp.sum(jnp.square(residual), axis=1)))
        begin = end
    return errors, residual


def reconstruction(params: Params, codes: Codes, step: Step, s: Any) -> tuple[Array, Float[Array, "batch d_in"]]:
    """The reconstruction term of nested prefixes, their mean or sum, and what all units leave of the target.

    Args:
        params: decoder_weight and decoder_bias are read; the bias is in every prefix.
        codes: [batch, d_hidden].
        step: target and number are read.
        s: prefixes, prefix_errors and d_hidden are read.

    Source: dictionary_learning, MatryoshkaBatchTopKTrainer.loss (mean); SAELens 6.54.12,
    MatryoshkaBatchTopKTrainingSAE (sum).
    """
    number = drawn(s.prefixes)
    if number:
        errors = drawn_errors(params, codes, step.target, drawn_sizes(step, number, s.d_hidden), s.products)
        whole = by_sample(codes, params["decoder_weight"], s.products)
        residual = jnp.asarray(step.target - params["decoder_bias"][None]) - whole
    else:
        one_by_one, residual = nested_errors(params, codes, step.target, widths(s.prefixes, s.d_hidden), s.products)
        errors = jnp.stack(one_by_one)
    return combined(errors, s), residual


def combined(errors: Float[Array, " prefixes"], s: Any) -> Float[Array, ""]:
    """The mean of the prefixes' errors, or their sum."""
    return jnp.sum(errors) if s.prefix_errors == "sum" else jnp.mean(errors)


def sizes_of(step: Step, s: Any) -> Float[Array, " prefixes"]:
    """Widths of a step's prefixes, ascending, fixed or drawn; all units last."""
    number = drawn(s.prefixes)
    if number:
        return jnp.sort(drawn_sizes(step, number, s.d_hidden))
    return jnp.asarray(widths(s.prefixes, s.d_hidden), jnp.float32)


def drawn_sizes(step: Step, number: int, d_hidden: int) -> Float[Array, " number"]:
    """Widths of a step's prefixes: drawn from a Pareto law of exponent 1/2 truncated to [1, n], and n itself.

    They are a function of the step alone, so that lanes and devices agree.

    Source: Nabeshima 2024, "Matryoshka sparse autoencoders" (prefixes drawn anew for every batch).
    """
    number_of_step = jnp.int32(0) if step.number is None else jnp.asarray(step.number, jnp.int32)
    uniform = jax.random.uniform(jax.random.fold_in(jax.random.key(0), number_of_step), (number,))
    least = d_hidden**-0.5
    sizes = jnp.ceil(jnp.square(1.0 / (1 - uniform * (1 - least))))
    return jnp.minimum(sizes, d_hidden).at[-1].set(d_hidden)


def drawn_errors(
    params: Params, codes: Codes, target: Batch, sizes: Array, factors: str = "float32"
) -> Float[Array, " number"]:
    """Squared error of prefixes whose widths are traced; each costs a product."""
    units = jnp.arange(codes.shape[1])

    def error(size: Array) -> Array:
        inside = jnp.where((units < size)[None], codes, 0)
        residual = target - params["decoder_bias"][None] - by_sample(inside, params["decoder_weight"], factors)
        return jnp.mean(jnp.sum(jnp.square(residual), axis=1))

    return jax.lax.map(error, sizes)

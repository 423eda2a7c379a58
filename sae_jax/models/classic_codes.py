"""Codes of the classic family: how they are made, read as active, and decoded.

Inside a step they lie by unit, each with its whole batch.
"""

from __future__ import annotations

import functools
import operator

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sae_jax.models.activations import ACTIVATIONS, OUTPUTS
from sae_jax.models.base import Batch, Codes, Params, Scalar, Step
from sae_jax.models.classic_settings import Settings
from sae_jax.models.linear import decoder_product, encoder_product
from sae_jax.models.selection import dropped, largest, largest_of_units, samples_per_unit, units_at


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch: h = sigma(x We^T + be), and 0 but for the k largest pre-activations of a sample.

    Args:
        params: encoder_weight and encoder_bias are read.
        x: samples, [batch, d_in].
        s: activation, products and k, where 0 and None keep all, are read; k_factor k are kept.

    Returns:
        Codes, [batch, d_hidden].

    Encoding and decoding state their own gradients, so they are differentiated in reverse (`jax.grad`, `jax.vjp`,
    `jax.jacrev`), not forward.

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 2 (k_factor is its alpha).
    """
    by_unit, pre_activations = _all_by_unit(params, x, s)
    if s.k is not None:
        by_unit = _among_largest(by_unit, pre_activations, units_encoded(s))
    return by_unit.T


def units_encoded(s: Settings) -> Scalar | Array:
    """How many units `encode` keeps on each sample: all, k, or round(k_factor k)."""
    if s.k is None:
        return s.d_hidden
    k = s.k if s.k_factor is None else jnp.maximum(1, jnp.round(s.k * s.k_factor))
    return jnp.where(s.k > 0, jnp.minimum(k, s.d_hidden), s.d_hidden)


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them, with its k and the shares of `lifetime`."""
    return trained_by_unit(params, step, s).T


def trained_by_unit(params: Params, step: Step, s: Settings) -> Float[Array, "d_hidden batch"]:
    """`step_codes`, unit by unit."""
    by_unit, pre_activations = _all_by_unit(params, step.x, s)
    if s.k is not None:
        by_unit = _among_largest(by_unit, pre_activations, units_at(step, s))
    if s.lifetime is not None:
        by_unit = jnp.where(largest_of_units(pre_activations, samples_per_unit(step, s), step.across), by_unit, 0)
    return by_unit


def _all_by_unit(params: Params, x: Batch, s: Settings) -> tuple[Array, Array]:
    """Codes before any choice and what they are chosen by, each [d_hidden, batch]."""
    pre_activations = encoder_product(params["encoder_weight"], x, s.products) + params["encoder_bias"][:, None]
    return ACTIVATIONS[s.activation].apply(pre_activations), pre_activations


def _among_largest(by_unit: Array, pre_activations: Array, k: Scalar | Array) -> Array:
    return jnp.where(largest(pre_activations.T, k).T, by_unit, 0)


def left_out(codes: Codes, s: Settings) -> Bool[Array, "batch d_hidden"] | None:
    """Which codes a choice of the largest left out; None where no lane of the program chooses.

    Of a lane that keeps all, beside others that choose, it is none: its zeros are codes.
    """
    choices = [value > 0 for value in (s.k, s.lifetime) if value is not None]
    return dropped(codes) & functools.reduce(operator.or_, choices) if choices else None


def decode(params: Params, codes: Codes, s: Settings) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes: x_hat = tau(h Wd + bd), [batch, d_in]."""
    return OUTPUTS[s.output](logits(params, jnp.asarray(codes).T, s))


def logits(params: Params, by_unit: Float[Array, "d_hidden batch"], s: Settings) -> Float[Array, "batch d_in"]:
    """Reconstruction before the output's activation, from codes that lie by unit."""
    rows = params.get("decoder_weight", params["encoder_weight"])
    return decoder_product(by_unit, rows, s.products) + params["decoder_bias"][None, :]


def activity(codes: Codes, s: Settings) -> Codes:
    """Codes on the penalty's scale, [0, 1] where they are bounded.

    0 where only the largest are kept and this is none of them, which is not what 0 stands for on every scale.
    """
    values, left = ACTIVATIONS[s.activation].activity(codes), left_out(codes, s)
    return values if left is None else jnp.where(left, 0, values)


def active(codes: Codes, s: Settings) -> Array:
    """Which codes count as active, by `active_rule`; none that a choice of the largest left out."""
    exceeds, left = ACTIVATIONS[s.activation].is_active(codes), left_out(codes, s)
    return exceeds if left is None else exceeds & ~left


def active_rule(s: Settings) -> str:
    """What `active` is, in words."""
    return f"{ACTIVATIONS[s.activation].active_rule} for {s.activation} codes"

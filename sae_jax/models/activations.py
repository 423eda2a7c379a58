"""Activations by name, how a code is read (on the penalty's scale, as active or not), and the k largest of a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sae_jax.models.types import Codes, Scalar


class Activation(NamedTuple):
    """One activation of the codes.

    Attributes:
        apply: pre-activations -> codes.
        slope: codes -> derivative of the codes by the pre-activations.
        activity: codes -> the scale on which the mean activation is held near rho; [0, 1] for bounded codes.
        is_active: codes -> booleans, whether the unit counts as active on the sample.
        active_rule: the same rule in words, for labels.
    """

    apply: Callable[[Any], Array]
    slope: Callable[[Any], Array]
    activity: Callable[[Any], Array]
    is_active: Callable[[Any], Array]
    active_rule: str


def _same(values: Any) -> Any:
    return values


# Bounded codes are never exactly 0. They are read as binary at 0.1, as Salakhutdinov and Hinton (2009, "Semantic
# hashing") do for codes that crowd near 0, as sparse ones do: half-way, at 0.5, a unit that answers to its feature with
# 0.4 would count as silent. Rectified codes are active where they are not zero.
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(
        apply=jax.nn.sigmoid,
        slope=lambda codes: codes * (1 - codes),
        activity=_same,
        is_active=lambda codes: codes > 0.1,
        active_rule="code > 0.1",
    ),
    "tanh": Activation(
        apply=jnp.tanh,
        slope=lambda codes: 1 - jnp.square(codes),
        activity=lambda codes: (codes + 1) / 2,
        is_active=lambda codes: codes > -0.8,
        active_rule="(code + 1) / 2 > 0.1",
    ),
    "relu": Activation(
        apply=jax.nn.relu,
        slope=lambda codes: (codes > 0).astype(codes.dtype),
        activity=_same,
        is_active=lambda codes: codes > 0,
        active_rule="code > 0",
    ),
    "linear": Activation(
        apply=_same,
        slope=jnp.ones_like,
        activity=_same,
        is_active=lambda codes: codes != 0,
        active_rule="code != 0",
    ),
}


def activity(codes: Codes, activation: str, top_k: bool) -> Codes:
    """Codes on the penalty's scale; 0 where top-k dropped them, which is not what 0 stands for on every scale."""
    values = ACTIVATIONS[activation].activity(codes)
    return jnp.where(dropped(codes), 0, values) if top_k else values


def dropped(codes: Codes) -> Bool[Array, "batch d_hidden"]:
    """Which codes top-k left out: those that are exactly 0."""
    return jnp.asarray(codes) == 0


BITS = 32


def largest(pre_activations: Codes, k: Scalar | Array) -> Bool[Array, "batch d_hidden"]:
    """Which pre-activations are among the k largest of their sample, [batch, d_hidden]; k may be traced.

    `lax.top_k` needs a k that is fixed when the program is compiled. Here the k-th largest value is found bit by bit,
    as the largest number that at least k values reach, so that one program serves every k. Equal values stay together.

    Args:
        pre_activations: [batch, d_hidden].
        k: how many to keep, >= 1; d_hidden and more keep all.
    """
    bits = jax.lax.bitcast_convert_type(jnp.asarray(pre_activations, jnp.float32), jnp.uint32)
    # Floats in the order of unsigned numbers: the sign bit is turned over, and all others of negative ones.
    top = jnp.uint32(1 << BITS - 1)
    ordered = jnp.where(bits & top, ~bits, bits | top)

    def next_bit(i: Array, found: Array) -> Array:
        tried = found | (top >> i.astype(jnp.uint32))
        enough = jnp.sum(ordered >= tried[:, None], axis=1) >= jnp.minimum(k, ordered.shape[1])
        return jnp.where(enough, tried, found)

    threshold = jax.lax.fori_loop(0, BITS, next_bit, jnp.zeros(ordered.shape[0], jnp.uint32))
    return ordered >= threshold[:, None]


OUTPUTS: dict[str, Callable[[Any], Array]] = {"sigmoid": jax.nn.sigmoid, "linear": _same}

"""Activations by name, and how their codes are read: on the penalty's scale, as active or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


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
    # Source: Subramanian et al. 2018, "SPINE: sparse interpretable neural embeddings", section 2.
    "capped_relu": Activation(
        apply=lambda pre_activations: jnp.clip(pre_activations, 0, 1),
        slope=lambda codes: ((codes > 0) & (codes < 1)).astype(codes.dtype),
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


OUTPUTS: dict[str, Callable[[Any], Array]] = {"sigmoid": jax.nn.sigmoid, "linear": _same}

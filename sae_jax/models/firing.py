"""The KL penalty on firing rates: every unit is held near a rate that is set in advance, so that L0 is their sum.

    rate_weight sum_j KL(r || r_hat_j),  r_hat_j a running mean of 1[z_ij > theta_j]

Its gradient reaches the gates as in `models.kl`, and passes the jump through a kernel to thresholds and z.
A unit that no longer fires is pushed up as long as its pre-activations come near the threshold.

Source: Ng, CS294A notes, section 3 (the penalty), on the gates of Rajamanoharan et al. 2024b.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_memory, memory
from sae_jax.models.base import Codes, Scalar, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.jump import jump
from sae_jax.models.kl import EPSILON, kl_penalty
from sae_jax.settings import HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, Range, Unread, swept


@struct.dataclass
class Settings(dictionary.Settings):
    """Settings of the penalty on firing rates."""

    UNREAD: ClassVar[Unread] = {
        **dictionary.Settings.UNREAD,
        ("target_rate", 0): ("rate_weight", "rate_decay", "rate_bandwidth"),
    }
    target_rate: Any = swept(
        0.0,
        Range(0, 1 - EPSILON),
        "share of the samples on which each unit is to fire; beside a target_l0 it is target_l0 over the units",
        off=0.0,
    )
    rate_weight: Any = swept(1.0, NON_NEGATIVE, "weight of the KL penalty on firing rates")
    rate_decay: Any = swept(0.9, HALF_OPEN_UNIT, "decay per step of the running firing rates")
    rate_bandwidth: Any = swept(0.3, POSITIVE, "width of the kernel that the penalty passes the jump through")


def rate(s: Any) -> Scalar | Array:
    """r: what every unit's share of the samples is to be."""
    asked = (
        s.target_rate if s.target_l0 is None else jnp.where(s.target_l0 > 0, s.target_l0 / s.d_hidden, s.target_rate)
    )
    return jnp.clip(asked, EPSILON, 1 - EPSILON)


def penalty(state: Memory | None, step: Step, s: Any, z: Codes, threshold: Array) -> Float[Array, ""]:
    """The penalty of a batch.

    Args:
        state: its running rates; None takes the batch's own.
        step: statistics of the whole batch.
        s: target_rate and the settings of the penalty.
        z: pre-activations, [batch, d_hidden].
        threshold: theta of every unit, [d_hidden].
    """
    gates = jump(z, threshold, s.rate_bandwidth, True)[1]
    target = rate(s)
    rates = step.across.mean(jnp.mean(gates, axis=0))
    if state is not None and state.rates is not None:
        rates = memory.estimate(state.rates, target)
    return kl_penalty(gates, rates, target, jnp.where(s.target_rate > 0, s.rate_weight, 0))


def terms(s: Any) -> dict[str, Term]:
    """The term of `penalty`, where it is on."""
    return {} if s.target_rate is None else {"rate": Term("rate_weight * sum_j KL(r || r_hat_j)", "nat")}


def start_memory(s: Any) -> Memory:
    """As of every dictionary, with the running rates, which start at the target."""
    shared = dictionary_memory.start_memory(s)
    if s.target_rate is None:
        return shared
    return dataclasses.replace(shared, rates=memory.start(rate(s), s.d_hidden, "rho"))


def update_memory(state: Memory, seen: Seen, s: Any) -> Memory:
    """As of every dictionary, with the running rates."""
    shared = dictionary_memory.update_memory(state, seen, s)
    if s.target_rate is None:
        return shared
    return dataclasses.replace(shared, rates=memory.update(state.rates, seen.rates, s.rate_decay))

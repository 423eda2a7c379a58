"""The k largest pre-activations of every sample.

    f = relu(z) where z is among the k largest of its sample, else 0

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sae_jax.models import dictionary, dictionary_loss
from sae_jax.models.active_units import Settings, check_whole, count, count_at, scaled
from sae_jax.models.base import Batch, Codes, Model, Params, Scalar, Step
from sae_jax.models.choice import Choice, largest_of_samples
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.selection import largest
from sae_jax.models.sparse_loss import Selection, by_list


def compared(params: Params, x: Batch, s: Any) -> tuple[Codes, Codes]:
    """(z, what its units are chosen by), each [batch, d_hidden]."""
    z = dictionary.pre_activations(params, x, s)
    return z, scaled(params, z, s)


def among_largest(strength: Codes, k: Scalar | Array) -> Bool[Array, "batch d_hidden"]:
    """Which units are among the round(k) largest of their sample, without gradient.

    Args:
        strength: what units are chosen by, [batch, d_hidden].
        k: how many of a sample.
    """
    return largest(jax.lax.stop_gradient(strength), jnp.round(k))


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = the k largest of z, rectified."""
    z, strength = compared(params, x, s)
    return jnp.where(among_largest(strength, count(s)), jax.nn.relu(z), 0)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z, strength, codes = _of_step(params, step, s)
    return dictionary_loss.shared_loss(params, state, step, s, z, codes, strength=strength)


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them, with its k."""
    return _of_step(params, step, s)[2]


def _of_step(params: Params, step: Step, s: Settings) -> tuple[Codes, Codes, Array]:
    """(z, what its units are chosen by, codes), each [batch, d_hidden], as the step stores them."""
    z, strength = dictionary.stored(compared(params, step.x, s), s)
    return z, strength, jnp.where(among_largest(strength, count_at(step, s)), jax.nn.relu(z), 0)


def listed(params: Params, step: Step, s: Settings, most: int) -> tuple[Choice, Codes]:
    """(which codes a step keeps, as a list with room for `most` of a sample; what units are chosen by)."""
    k = jnp.round(count_at(step, s))
    z, strength = compared(jax.lax.stop_gradient(params), step.x, s)
    return largest_of_samples(z, strength, k, most, step.across), strength


TOPK = Model(
    **dictionary.SHARED
    | {
        "name": "topk",
        "Settings": Settings,
        "terms": dictionary_loss.shared_terms,
        "encode": encode,
        "loss": loss,
        "step_codes": step_codes,
        "sparse": functools.partial(by_list, Selection(loss, count, compared, listed)),
        # A shorter row would never be among the largest.
        "renew": lambda params, seen, s: dictionary.renew(params, seen, s, share=1.0),
        "ramp": lambda s: s.k_warmup,
        "check": check_whole,
        "missed": (
            "k is a whole number there, and an upper bound where samples have fewer positive pre-activations",
            "batch_topk, which reaches it, or a lower or whole target_l0",
        ),
    }
)

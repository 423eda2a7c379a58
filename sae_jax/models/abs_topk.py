"""The k largest pre-activations of every sample by size, whose signs stay.

    f = z where |z| is among the k largest of its sample, else 0

A unit stands for two opposite directions, one for each sign of its code.

Source: Zhu, Khalili and Zhu 2025, "AbsTopK: rethinking sparse autoencoders for bidirectional features", arXiv
2510.00404.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models import active_units, dictionary, dictionary_loss
from sae_jax.models.active_units import Settings, count, count_at, scaled
from sae_jax.models.base import Batch, Codes, Params, Step
from sae_jax.models.choice import Choice, largest_of_samples
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.sparse_loss import Selection, by_list
from sae_jax.models.topk import TOPK, among_largest
from sae_jax.settings import UserError


def compared(params: Params, x: Batch, s: Any) -> tuple[Codes, Codes]:
    """(z, sizes that its units are chosen by), each [batch, d_hidden]."""
    z = dictionary.pre_activations(params, x, s)
    return z, scaled(params, jnp.abs(z), s)


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = z where its size is among the k largest."""
    z, sizes = compared(params, x, s)
    return jnp.where(among_largest(sizes, count(s)), z, 0)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z, sizes, codes = _of_step(params, step, s)
    # Dead units too are chosen by size, and rebuild with their signs.
    return dictionary_loss.shared_loss(params, state, step, s, z, codes, strength=sizes)


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them, with its k."""
    return _of_step(params, step, s)[2]


def _of_step(params: Params, step: Step, s: Settings) -> tuple[Codes, Codes, Array]:
    """(z, sizes that its units are chosen by, codes), each [batch, d_hidden], as the step stores them."""
    z, sizes = dictionary.stored(compared(params, step.x, s), s)
    return z, sizes, jnp.where(among_largest(sizes, count_at(step, s)), z, 0)


def listed(params: Params, step: Step, s: Settings, most: int) -> tuple[Choice, Codes]:
    """(which codes a step keeps, as a list with room for `most` of a sample; sizes that units are chosen by)."""
    k = jnp.round(count_at(step, s))
    z, sizes = compared(jax.lax.stop_gradient(params), step.x, s)
    return largest_of_samples(z, sizes, k, most, step.across), sizes


def check(s: Settings) -> None:
    """Refuse what `active_units.check_whole` does, and a help for dead units that asks for thresholds.

    Raises:
        UserError: there is such.
    """
    active_units.check_whole(s)
    if s.dead_units.startswith("pre_activation"):
        raise UserError(
            f"abs_topk has no threshold that pre-activations lie below: got dead_units {s.dead_units}; use auxk or none"
        )


ABS_TOPK = TOPK._replace(
    name="abs_topk",
    encode=encode,
    loss=loss,
    step_codes=step_codes,
    sparse=functools.partial(by_list, Selection(loss, count, compared, listed, signed=True)),
    check=check,
    missed=("k is a whole number there", "batch_topk, which keeps a fraction on average, or a whole target_l0"),
)

"""The B k largest pre-activations of a batch of B samples, and a threshold in their place at inference.

    training   f = relu(z) where it is among the B k largest of the whole batch
    inference  f = relu(z) where it is at least theta, a running mean of the smallest code that a batch kept

Source: Bussmann, Leask and Nanda 2024, "BatchTopK sparse autoencoders".
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import active_units, dictionary, dictionary_loss, firing, running_threshold
from sae_jax.models.active_units import count, count_at, scaled
from sae_jax.models.base import Batch, Codes, Loss, Parameter, Params, Step
from sae_jax.models.choice import Choice, largest_of_whole
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.selection import largest_of_batch
from sae_jax.models.sparse_loss import Selection, by_list
from sae_jax.models.topk import TOPK, compared
from sae_jax.settings import HALF_OPEN_UNIT, one_of, static, swept


@struct.dataclass
class Settings(active_units.Settings, firing.Settings):
    """Settings of BatchTopK dictionaries."""

    threshold_decay: Any = swept(0.99, HALF_OPEN_UNIT, "decay per step of the running threshold")
    threshold_bias: str = static(
        "corrected", one_of(("corrected", "kept")), "the running threshold's bias to its start at 0; SAELens keeps it"
    )


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = relu(z) where it is at least the threshold of a finished lane."""
    z = dictionary.pre_activations(params, x, s)
    return jnp.where(scaled(params, z, s) >= params["threshold"][None], jax.nn.relu(z), 0)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z, strength, chosen, codes = _of_step(params, step, s)
    positive = jax.nn.relu(strength)
    values, seen = dictionary_loss.shared_loss(params, state, step, s, z, codes, strength=strength)
    least = running_threshold.least(positive, chosen, step)
    if s.target_rate is not None:
        threshold = jnp.full(s.d_hidden, jnp.where(jnp.isfinite(least), least, 0))
        values["rate"] = firing.penalty(state, step, s, strength, threshold)
    return values, seen._replace(least=least)


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them: those among the B k largest of the whole batch."""
    return _of_step(params, step, s)[3]


def _of_step(params: Params, step: Step, s: Settings) -> tuple[Codes, Codes, Array, Array]:
    """(z, what its units are chosen by, which are chosen, codes), each [batch, d_hidden], as the step stores them."""
    z, strength = dictionary.stored(compared(params, step.x, s), s)
    positive = jax.nn.relu(strength)
    chosen = largest_of_batch(jax.lax.stop_gradient(positive), total_at(step, s), step.across) & (positive > 0)
    return z, strength, chosen, jnp.where(chosen, jax.nn.relu(z), 0)


def total_at(step: Step, s: Settings) -> Float[Array, ""]:
    """Active units of a whole batch of B samples at a step, B k rounded."""
    return jnp.round(count_at(step, s) * step.across.sum(jnp.float32(len(step.x))))


def listed(params: Params, step: Step, s: Settings, most: int) -> tuple[Choice, Codes]:
    """(which codes a step keeps, as a list with room for `most` of a sample on average; what units are chosen by)."""
    z, strength = compared(jax.lax.stop_gradient(params), step.x, s)
    return largest_of_whole(z, strength, total_at(step, s), most, step.across), strength


def _with_least(seen: Seen, choice: Choice, strength: Codes, step: Step) -> Seen:
    """What is seen of codes that are a list, with the least of them as the loss of all codes has it."""
    return seen._replace(least=running_threshold.least(strength[choice.samples, choice.units], choice.chosen, step))


SELECTION = Selection(loss, count, compared, listed, seen=_with_least)


def sparse(dense: Loss, s: Settings) -> Loss | None:
    """`by_list`, unless firing rates are penalised, which needs all pre-activations."""
    return by_list(SELECTION, dense, s) if s.target_rate is None else None


BATCH_TOPK = TOPK._replace(
    name="batch_topk",
    Settings=Settings,
    parameters=lambda s: (
        dictionary.parameters(s)
        | {"threshold": Parameter(("unit",), "smallest code at inference, theta, the same of all units")}
    ),
    terms=lambda s: dictionary_loss.shared_terms(s) | firing.terms(s),
    encode=encode,
    loss=loss,
    step_codes=step_codes,
    sparse=sparse,
    memory=running_threshold.start_memory,
    update=running_threshold.update_memory,
    recall=running_threshold.recall,
    finish=running_threshold.finish,
    exact=lambda s: dictionary.EXACT | {"target_rate": None},
    check=active_units.check,
    missed=("", "more steps"),
)

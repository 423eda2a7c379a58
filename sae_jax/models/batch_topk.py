"""The B k largest pre-activations of a batch of B samples, and a threshold in their place at inference.

    training   f = relu(z) where it is among the B k largest of the whole batch
    inference  f = relu(z) where it is at least theta, a running mean of the smallest code that a batch kept

Source: Bussmann, Leask and Nanda 2024, "BatchTopK sparse autoencoders".
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, firing, memory, sparse, topk
from sae_jax.models.base import Batch, Codes, Loss, Parameter, Params, Step
from sae_jax.models.choice import largest_of_whole
from sae_jax.models.dictionary import PREFIXES
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.linear import widened
from sae_jax.models.selection import largest_of_batch
from sae_jax.settings import HALF_OPEN_UNIT, TEXT, Unread, one_of, static, swept


@struct.dataclass
class Settings(topk.Settings, firing.Settings):
    """Settings of BatchTopK dictionaries."""

    UNREAD: ClassVar[Unread] = {**topk.Settings.UNREAD, **firing.Settings.UNREAD}
    threshold_decay: Any = swept(0.99, HALF_OPEN_UNIT, "decay per step of the running threshold")
    threshold_bias: str = static(
        "corrected", one_of(("corrected", "kept")), "the running threshold's bias to its start at 0; SAELens keeps it"
    )


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = relu(z) where it is at least the threshold of a finished lane."""
    z = dictionary.pre_activations(params, x, s)
    return jnp.where(topk.scaled(params, z, s) >= params["threshold"][None], jax.nn.relu(z), 0)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z, strength, chosen, codes = _of_step(params, step, s)
    positive = jax.nn.relu(strength)
    values, seen = dictionary_loss.shared_loss(params, state, step, s, z, codes, strength=strength)
    least = _least(positive, chosen, step)
    if s.target_rate is not None:
        threshold = jnp.full(s.d_hidden, jnp.where(jnp.isfinite(least), least, 0))
        values["rate"] = firing.penalty(state, step, s, strength, threshold)
    return values, seen._replace(least=least)


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them: those among the B k largest of the whole batch."""
    return _of_step(params, step, s)[3]


def _of_step(params: Params, step: Step, s: Settings) -> tuple[Codes, Codes, Array, Array]:
    """(z, what its units are chosen by, which are chosen, codes), each [batch, d_hidden], as the step stores them."""
    z, strength = dictionary.stored(topk.compared(params, step.x, s), s)
    positive = jax.nn.relu(strength)
    chosen = largest_of_batch(jax.lax.stop_gradient(positive), total_at(step, s), step.across) & (positive > 0)
    return z, strength, chosen, jnp.where(chosen, jax.nn.relu(z), 0)


def total_at(step: Step, s: Settings) -> Float[Array, ""]:
    """Active units of a whole batch of B samples at a step, B k rounded."""
    return jnp.round(topk.count_at(step, s) * step.across.sum(jnp.float32(len(step.x))))


def _least(strength: Array, chosen: Array, step: Step) -> Float[Array, ""]:
    """The smallest that was chosen of the whole batch; infinite where none was."""
    return -step.across.max(widened(jnp.max(jnp.where(chosen, -strength, -jnp.inf))))


def sparse_loss(dense: Loss, s: Settings) -> Loss | None:
    """The same loss, whose codes are a list, for lanes of such settings; None where that is not worth while."""
    most = topk.most_active(s) if dense is loss and s.target_rate is None else None
    return None if most is None else _sparse_loss(most)


@functools.lru_cache(maxsize=64)
def _sparse_loss(most: int) -> Loss:
    """One function for every such number of active units: programs are compiled for each."""

    def sparse_loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
        z, strength = topk.compared(jax.lax.stop_gradient(params), step.x, s)
        choice = largest_of_whole(z, strength, total_at(step, s), most, step.across)

        def few(params: Params, helped: bool) -> tuple[dict[str, Array], Seen]:
            codes = sparse.codes_of(params, dictionary.subtracted(params, s), step.x, choice, rectify=True)
            values, seen = dictionary_loss.sparse_loss(
                params, state, step, s, codes, lambda: topk.compared(params, step.x, s), helped
            )
            sizes = strength[choice.samples, choice.units]
            return values, seen._replace(least=_least(sizes, choice.chosen, step))

        def every(params: Params) -> tuple[dict[str, Array], Seen]:
            return loss(params, state, step, s)

        return sparse.by_list_or_all(choice.complete, dictionary_loss.any_to_help(state, s), few, every, params)

    return sparse_loss


def start_memory(s: Settings) -> Memory:
    """Dead units and firing rates, and the threshold's average from 0, whose bias is known."""
    return dataclasses.replace(firing.start_memory(s), threshold=memory.start(0.0, 1, "zero"))


def update_memory(state: Memory, seen: Seen, s: Settings) -> Memory:
    """Count silence and firing, and average the smallest code kept; a batch that kept none changes nothing."""
    after = memory.update(state.threshold, seen.least[None], s.threshold_decay)
    there = jnp.isfinite(seen.least)
    threshold = jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state.threshold)
    return dataclasses.replace(firing.update_memory(state, seen, s), threshold=threshold)


def recall(state: Memory, params: Params, s: Settings) -> Memory:
    """With the threshold of a finished lane, from which the running mean goes on."""
    weight = jnp.zeros_like(state.threshold.start_weight)
    return dataclasses.replace(state, threshold=memory.SparsityState(params["threshold"][..., :1], weight))


def finish(params: Params, state: Memory, s: Settings) -> Params:
    """With the threshold, the running mean without the bias of its start, unless that is kept.

    Source: SAELens 6.54.12, BatchTopKTrainingSAE.update_topk_threshold (kept).
    """
    average = state.threshold
    mean = average.average if s.threshold_bias == "kept" else memory.estimate(average, 0.0)
    return dictionary.finish(params, state, s) | {"threshold": jnp.full(s.d_hidden, mean[0])}


@struct.dataclass
class NestedSettings(Settings):
    """Settings of Matryoshka dictionaries: those of BatchTopK, with prefixes."""

    prefixes: str = static("1/16,1/8,1/4,1/2", TEXT, PREFIXES)


BATCH_TOPK = topk.TOPK._replace(
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
    sparse=sparse_loss,
    memory=start_memory,
    update=update_memory,
    recall=recall,
    finish=finish,
)
# Source: Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders".
MATRYOSHKA = BATCH_TOPK._replace(name="matryoshka", Settings=NestedSettings)

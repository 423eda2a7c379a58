"""The threshold that BatchTopK has at inference: a running mean of the smallest code that a batch kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models import dictionary, firing, memory
from sae_jax.models.base import Params, Step
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.linear import widened


def least(strength: Array, chosen: Array, step: Step) -> Float[Array, ""]:
    """The smallest that was chosen of the whole batch; infinite where none was."""
    return -step.across.max(widened(jnp.max(jnp.where(chosen, -strength, -jnp.inf))))


def start_memory(s: Any) -> Memory:
    """Dead units and firing rates, and the threshold's average from 0, whose bias is known."""
    return dataclasses.replace(firing.start_memory(s), threshold=memory.start(0.0, 1, "zero"))


def update_memory(state: Memory, seen: Seen, s: Any) -> Memory:
    """Count silence and firing, and average the smallest code kept; a batch that kept none changes nothing."""
    after = memory.update(state.threshold, seen.least[None], s.threshold_decay)
    finite = jnp.isfinite(seen.least)
    threshold = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state.threshold)
    return dataclasses.replace(firing.update_memory(state, seen, s), threshold=threshold)


def recall(state: Memory, params: Params, s: Any) -> Memory:
    """With the threshold of a finished lane, from which the running mean goes on."""
    weight = jnp.zeros_like(state.threshold.start_weight)
    return dataclasses.replace(state, threshold=memory.SparsityState(params["threshold"][..., :1], weight))


def finish(params: Params, state: Memory, s: Any) -> Params:
    """With the threshold, the running mean without the bias of its start, unless that is kept.

    Source: SAELens 6.54.12, BatchTopKTrainingSAE.update_topk_threshold (kept).
    """
    average = state.threshold
    mean = average.average if s.threshold_bias == "kept" else memory.estimate(average, 0.0)
    return dictionary.finish(params, state, s) | {"threshold": jnp.full(s.d_hidden, mean[0])}

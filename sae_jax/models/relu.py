"""ReLU codes under an L1 penalty.

    f = relu(z),  loss = mean ||x - x_hat||^2 + l1 mean_i sum_j f_ij  (times ||Wd_j|| where l1_weights is norms)

Source: Bricken et al. 2023, "Towards monosemanticity" (plain, with rows unit); Anthropic, "Circuits updates", April
2024 (norms, with rows free).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, dictionary_memory, rows, steering
from sae_jax.models.base import Batch, Model, Params, Scalar, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.linear import widened
from sae_jax.settings import CLOSED_UNIT, NON_NEGATIVE, Unread, one_of, static, swept


@struct.dataclass
class Settings(dictionary.Settings):
    """Settings of ReLU dictionaries."""

    UNREAD: ClassVar[Unread] = {
        **dictionary.Settings.UNREAD,
        ("rows", "unit"): ("start_norm", "encoder_start", "l1_weights"),
        ("frozen", "encoder"): ("target_l0",),
    }
    l1: Any = swept(0.1, NON_NEGATIVE, "weight of the codes' L1 norm, summed over units")
    l1_weights: str = static("norms", one_of(("plain", "norms")), "what codes weigh in it: 1, or their rows' norms")
    l1_warmup: Any = swept(0.05, CLOSED_UNIT, "fraction of the steps over which l1 rises linearly from 0")
    target_l0: Any = swept(
        0.0, NON_NEGATIVE, "active units per sample that l1 is steered to; 0 leaves it", "unit", off=0.0
    )


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = relu(z)."""
    return jax.nn.relu(dictionary.pre_activations(params, x, s))


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z = dictionary.stored(dictionary.pre_activations(params, step.x, s), s)
    codes = jax.nn.relu(z)
    values, seen = dictionary_loss.shared_loss(params, state, step, s, z, codes)
    weight = steered(state, s.l1 * step.ramp(s.l1_warmup), s)
    return values | {"l1": weight * l1_norm(params, codes, s)}, seen


def l1_norm(params: Params, codes: Array, s: Any) -> Float[Array, ""]:
    """mean_i sum_j f_ij of codes >= 0, each times the norm of its decoder row where l1_weights says so."""
    means = jnp.mean(widened(codes), axis=0)
    return jnp.sum(means * rows.norms(params["decoder_weight"]) if s.l1_weights == "norms" else means)


def steered(state: Memory | None, weight: Scalar | Array, s: Any) -> Scalar | Array:
    """The weight of the penalty: as it is set, or as it has been steered to where a target L0 is."""
    if state is None or not _steers(s):
        return weight
    return jnp.where(s.target_l0 > 0, steering.coefficient(state.steering), weight)


def _steers(s: Any) -> bool:
    """Whether there is a target; no weight moves codes of an encoder that stays as it is."""
    return s.target_l0 is not None and s.frozen != "encoder"


def start_memory(s: Any) -> Memory:
    """Dead units, and the weight that is steered: at first as it is set, beside codes half of which are active."""
    shared = dictionary_memory.start_memory(s)
    return shared if not _steers(s) else dataclasses.replace(shared, steering=steering.start(s.l1, s.d_hidden / 2))


def update_memory(state: Memory, seen: Seen, s: Any, gain: float = steering.GAIN) -> Memory:
    """Count silence, and steer the weight, by a share of its error at a step."""
    shared = dictionary_memory.update_memory(state, seen, s)
    if not _steers(s):
        return shared
    moved = steering.update(state.steering, seen.l0, jnp.maximum(s.target_l0, 1e-3), gain)
    return dataclasses.replace(shared, steering=moved)


def ramp(s: Any) -> Scalar | Array:
    """The warm-up of the penalty's weight; one that is steered moves until the end."""
    return jnp.where(s.target_l0 > 0, 1.0, s.l1_warmup) if _steers(s) else s.l1_warmup


def check(s: Any) -> None:
    """Refuse what `dictionary.check` does, and a target above the number of units."""
    dictionary.check(s)
    dictionary.check_units("target_l0", s.target_l0, s)


RELU = Model(
    **dictionary.SHARED
    | {
        "name": "relu",
        "Settings": Settings,
        "terms": lambda s: (
            dictionary_loss.shared_terms(s) | {"l1": Term("l1 * mean sum_j f_j", dictionary_loss.squares(s))}
        ),
        "encode": encode,
        "loss": loss,
        "memory": start_memory,
        "update": update_memory,
        "ramp": ramp,
        # A weight that is steered makes another loss of every step.
        "exact": lambda s: dictionary.EXACT | {"target_l0": None},
        "check": check,
        "missed": ("", "more steps, or batch_topk where the encoder is frozen"),
    }
)

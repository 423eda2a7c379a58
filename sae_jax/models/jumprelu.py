"""ReLU codes that are 0 up to a threshold which every unit learns.

    f = z 1[z > theta],  theta >= 0,  loss = mean ||x - x_hat||^2 + a penalty on L0, a mode of `jump_penalties`

The kernel sees z itself: rectified, every z below 0 would lie at 0, and count as near any threshold under eps / 2.

Source: Rajamanoharan et al. 2024b, "Jumping ahead" (penalty step); Anthropic, "Circuits updates", January 2025 (tanh);
Gemma Scope 2, 2025 (quadratic).
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, firing, jump_penalties
from sae_jax.models.base import Batch, Key, Model, Parameter, Params, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.jump import jump
from sae_jax.models.jump_penalties import PENALTIES
from sae_jax.settings import CLOSED_UNIT, NON_NEGATIVE, POSITIVE, TRUE_OR_FALSE, Unread, one_of, static, swept


@struct.dataclass
class Settings(firing.Settings):
    """Settings of JumpReLU dictionaries."""

    UNREAD: ClassVar[Unread] = {
        **firing.Settings.UNREAD,
        ("target_l0", 0): ("target_weight", "threshold_rate"),
        ("penalty", "tanh"): ("target_weight", "threshold_rate"),
        # The penalty on firing rates has its rate from a target, too.
        ("penalty", "tanh", "target_rate", 0): ("target_l0",),
        ("penalty", "quadratic"): ("target_weight", "threshold_rate"),
    }
    penalty: str = static("step", one_of(PENALTIES), "what holds L0 down: its mode")
    l0: Any = swept(0.05, NON_NEGATIVE, "weight of the penalty")
    l0_warmup: Any = swept(0.05, CLOSED_UNIT, "fraction of the steps over which l0 rises linearly from 0")
    threshold_start: Any = swept(0.01, POSITIVE, "threshold of every unit at the start")
    bandwidth: Any = swept(0.1, POSITIVE, "width of the kernel through which thresholds learn")
    input_gradient: bool = static(False, TRUE_OR_FALSE, "the kernel leads to the pre-activations too")
    target_l0: Any = swept(0.0, NON_NEGATIVE, "active units per sample to be reached; 0 is none", "unit", off=0.0)
    threshold_rate: Any = swept(
        0.0,
        NON_NEGATIVE,
        "learning rate of the thresholds in units of the others', where there is a target, in mode step; 0 is "
        "5 sqrt(inputs / 32)",
    )
    target_weight: Any = swept(0.3, NON_NEGATIVE, "weight of (L0 / target_l0 - 1)^2 at the start, in mode step")


def init(key: Key, d_in: int, s: Settings) -> Params:
    """As every dictionary, with the thresholds."""
    return dictionary.init(key, d_in, s) | {"threshold": jnp.full(s.d_hidden, s.threshold_start, jnp.float32)}


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = z where it exceeds its unit's threshold."""
    return jump(dictionary.pre_activations(params, x, s), params["threshold"], s.bandwidth, s.input_gradient)[0]


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z = dictionary.stored(dictionary.pre_activations(params, step.x, s), s)
    codes, gates = jump(z, params["threshold"], s.bandwidth, s.input_gradient)
    values, seen = dictionary_loss.shared_loss(params, state, step, s, z, codes, params["threshold"])
    weight = s.l0 * step.ramp(s.l0_warmup)
    values["l0"] = PENALTIES[s.penalty](params, codes, gates, weight, step, s)
    if s.target_rate is not None:
        values["rate"] = firing.penalty(state, step, s, z, params["threshold"])
    return values, seen


def terms(s: Settings) -> dict[str, Term]:
    """The terms of `loss`, in its order."""
    penalty = {"l0": Term(f"penalty on L0 ({s.penalty})", dictionary_loss.squares(s))}
    return dictionary_loss.shared_terms(s) | penalty | firing.terms(s)


def constrain(params: Params, state: Memory, s: Settings) -> Params:
    """As every dictionary, with thresholds that are never below 0.

    Source: SAELens 6.54.12 (raw thresholds, clamped): Adam moves a logarithm of theta by theta times the rate a step.
    """
    return dictionary.constrain(params, state, s) | {"threshold": jnp.maximum(params["threshold"], 0)}


def check(s: Settings) -> None:
    """Refuse what `dictionary.check` does, a target above the number of units, and a mode that does not go with it."""
    dictionary.check(s)
    dictionary.check_units("target_l0", s.target_l0, s)
    jump_penalties.check(s)


JUMPRELU = Model(
    **dictionary.SHARED
    | {
        "name": "jumprelu",
        "Settings": Settings,
        "parameters": lambda s: dictionary.parameters(s) | {"threshold": Parameter(("unit",), "thresholds theta")},
        "terms": terms,
        "init": init,
        "encode": encode,
        "loss": loss,
        "memory": firing.start_memory,
        "update": firing.update_memory,
        "constrain": constrain,
        "rates": jump_penalties.rates,
        "renew": lambda params, seen, s: dictionary.renew(params, seen, s, threshold=s.threshold_start),
        "ramp": lambda s: s.l0_warmup,
        "exact": lambda s: None,
        "check": check,
        "missed": ("", "more steps, or penalty step where it is another"),
    }
)

"""ReLU codes that are 0 up to a threshold which every unit learns.

    f = z 1[z > theta],  theta >= 0,  and one of

    step        l0 mean_i sum_j H(z_ij - theta_j)
    tanh        l0 mean_i sum_j tanh(4 f_ij ||Wd_j||)
    quadratic   l0 (2 / L) mean_i (L0_i - L)^2,  L the target L0

In mode step a target L0 puts w V (L0 / L - 1)^2 in place of the penalty: L0 of the whole batch, V the batch's mean
||x - bd||^2, and w rising from target_weight to 100 times as much, so that codes come near it first and to it at last.

The kernel sees z itself: rectified, every z below 0 would lie at 0, and count as near any threshold under eps / 2.

Source: Rajamanoharan et al. 2024b, "Jumping ahead" (step); Anthropic, "Circuits updates", January 2025 (tanh); Gemma
Scope 2, 2025 (quadratic).
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, firing, rows
from sae_jax.models.base import Batch, Key, Model, Parameter, Params, Scalar, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.jump import jump
from sae_jax.settings import (
    CLOSED_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    TRUE_OR_FALSE,
    Unread,
    UserError,
    one_of,
    static,
    swept,
)

TANH_SCALE = 4.0
TARGET_WEIGHT_GROWTH = 100.0


@struct.dataclass
class Settings(firing.Settings):
    """Settings of JumpReLU dictionaries."""

    UNREAD: ClassVar[Unread] = {**firing.Settings.UNREAD, ("target_l0", 0): ("target_weight", "threshold_rate")}
    penalty: str = static("step", one_of(("step", "tanh", "quadratic")), "what holds L0 down: its mode")
    l0: Any = swept(0.05, NON_NEGATIVE, "weight of the penalty")
    l0_warmup: Any = swept(0.05, CLOSED_UNIT, "fraction of the steps over which l0 rises linearly from 0")
    threshold_start: Any = swept(0.01, POSITIVE, "threshold of every unit at the start")
    bandwidth: Any = swept(0.1, POSITIVE, "width of the kernel through which thresholds learn")
    input_gradient: bool = static(False, TRUE_OR_FALSE, "the kernel leads to the pre-activations too")
    target_l0: Any = swept(0.0, NON_NEGATIVE, "active units per sample to be reached; 0 is none", "unit", off=0.0)
    threshold_rate: Any = swept(
        5.0, POSITIVE, "learning rate of the thresholds in units of the others', where there is a target, in mode step"
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
    if s.penalty == "tanh":
        # Else differentiation would hold its slopes in float32.
        penalty = _tanh_penalty if s.activation_dtype == "float32" else jax.checkpoint(_tanh_penalty)
        values["l0"] = weight * penalty(codes, rows.norms(params["decoder_weight"]))
    elif s.penalty == "quadratic":
        miss = jnp.sum(gates, axis=1) - s.target_l0
        values["l0"] = weight * jnp.mean(jnp.square(miss)) * 2 / s.target_l0
    else:
        values["l0"] = _step_penalty(params, gates, weight, step, s)
    if s.target_rate is not None:
        values["rate"] = firing.penalty(state, step, s, z, params["threshold"])
    return values, seen


def _tanh_penalty(codes: Array, norms: Array) -> Float[Array, ""]:
    return jnp.mean(jnp.sum(jnp.tanh(TANH_SCALE * codes * norms[None]), axis=1))


def _step_penalty(params: Params, gates: Array, weight: Any, step: Step, s: Settings) -> Float[Array, ""]:
    local = jnp.mean(jnp.sum(gates, axis=1))
    if s.target_l0 is None:
        return weight * local
    target = jnp.maximum(s.target_l0, 1e-3)
    # The square's value and slope are those of the whole batch; only its own samples' gates are differentiated.
    miss = step.across.mean(local) / target - 1
    square = jnp.square(miss) + 2 * miss * (local - jax.lax.stop_gradient(local)) / target
    variance = step.across.mean(jnp.mean(jnp.sum(jnp.square(step.target - params["decoder_bias"][None]), axis=1)))
    steered = s.target_weight * TARGET_WEIGHT_GROWTH ** step.ramp(1.0) * variance * square
    return jnp.where(s.target_l0 > 0, steered, weight * local)


def terms(s: Settings) -> dict[str, Term]:
    """The terms of `loss`, in its order."""
    penalty = {"l0": Term(f"penalty on L0 ({s.penalty})", dictionary_loss.squares(s))}
    return dictionary_loss.shared_terms(s) | penalty | firing.terms(s)


def constrain(params: Params, state: Memory, s: Settings) -> Params:
    """As every dictionary, with thresholds that are never below 0.

    Source: SAELens 6.54.12 (raw thresholds, clamped): Adam moves a logarithm of theta by theta times the rate a step.
    """
    return dictionary.constrain(params, state, s) | {"threshold": jnp.maximum(params["threshold"], 0)}


def rates(s: Settings) -> dict[str, Scalar | Array]:
    """Thresholds that a target moves do so faster: their way to a low L0 is longer than that of any weight."""
    if s.target_l0 is None or s.penalty != "step":
        return {}
    return {"threshold": jnp.where(s.target_l0 > 0, s.threshold_rate, 1.0)}


def check(s: Settings) -> None:
    """Refuse what `dictionary.check` does, and mode quadratic without a target.

    Raises:
        UserError: there is such.
    """
    dictionary.check(s)
    dictionary.check_units("target_l0", s.target_l0, s)
    if s.penalty == "quadratic" and (s.target_l0 is None or not np.all(np.asarray(s.target_l0) > 0)):
        raise UserError("penalty quadratic needs a target: got target_l0 0; set target_l0, or use penalty step")


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
        "rates": rates,
        "renew": lambda params, saw, s: dictionary.renew(params, saw, s, threshold=s.threshold_start),
        "ramp": lambda s: s.l0_warmup,
        "check": check,
    }
)

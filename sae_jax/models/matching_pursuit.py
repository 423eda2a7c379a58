"""Greedy codes: k times, the decoder row that the residual lies along most is taken out of it.

    r_0 = x - bd;  j = argmax_j r . Wd_j,  a = max(0, r . Wd_j);  f_j <- f_j + a,  r <- r - a Wd_j

There is no encoder: rows are the same for both. They are held at norm 1, where a round takes out all that lies along
one; SAELens lets them grow, and has two more ends than the number of rounds.

Source: Mallat and Zhang 1993; as an autoencoder, SAELens 6.54.12, MatchingPursuitTrainingSAE.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss
from sae_jax.models.base import Batch, Key, Model, Params, Step
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.linear import by_sample
from sae_jax.settings import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, TRUE_OR_FALSE, UserError, one_of, static, swept


@struct.dataclass
class Settings(dictionary.Settings):
    """Settings of matching pursuit."""

    rows: str = static(
        "unit", one_of(("unit", "free")), "decoder rows: held at norm 1, or free to grow from start_norm"
    )
    start_norm: Any = swept(1.0, POSITIVE, "norm of the decoder rows at the start (rows free)")
    residual_threshold: Any = swept(
        0.0, NON_NEGATIVE, "a sample is done once its residual's norm is below this; 0 is off", "input units", off=0.0
    )
    stop_at_repeat: bool = static(
        False, TRUE_OR_FALSE, "a sample is done once a round makes no further unit active, as in SAELens"
    )
    k: int = static(8, AT_LEAST_ONE, "rounds: at most so many units are active on a sample", "unit")
    target_l0: int = static(0, NON_NEGATIVE, "active units per sample: rounds, by another name", "unit")


def rounds(s: Settings) -> int:
    """How many there are, by whichever name they are given."""
    return s.target_l0 or s.k


def init(key: Key, d_in: int, s: Settings) -> Params:
    """Decoder rows in random directions, and their bias."""
    return {name: value for name, value in dictionary.init(key, d_in, s).items() if not name.startswith("encoder")}


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f: what the rounds have taken out, by unit."""
    weight = params["decoder_weight"]
    units, samples = jnp.arange(len(weight)), jnp.arange(len(x))

    def one_round(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        residual, codes, done = carry
        # No gradient passes a choice, so that the one of a round needs no product over all units.
        along = by_sample(jax.lax.stop_gradient(residual), jax.lax.stop_gradient(weight).T, s.products)
        # The first of the largest: XLA's argmax goes through units one by one.
        first = jnp.min(jnp.where(along == jnp.max(along, axis=1, keepdims=True), units[None], len(weight)), axis=1)
        best = jnp.minimum(first, len(weight) - 1)
        row = weight[best]
        amount = jnp.where(done, 0, jax.nn.relu(jnp.sum(residual * row, axis=1)))
        if s.stop_at_repeat:
            done |= (amount == 0) | (codes[samples, best] != 0)
        codes = codes.at[samples, best].add(amount, unique_indices=True)
        residual = residual - amount[:, None] * row
        if s.residual_threshold is not None:
            squared = jax.lax.stop_gradient(jnp.sum(jnp.square(residual), axis=1))
            done |= squared < jnp.square(s.residual_threshold)
        return (residual, codes, done), None

    start = jnp.asarray(x - params["decoder_bias"][None])
    nothing = jnp.zeros((len(start), len(weight)), start.dtype)
    (_, codes, _), _ = jax.lax.scan(one_round, (start, nothing, jnp.zeros(len(start), bool)), None, rounds(s))
    return codes


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    codes = dictionary.stored(encode(params, step.x, s), s)
    along = by_sample(step.x - params["decoder_bias"][None], params["decoder_weight"].T, s.products)
    return dictionary_loss.shared_loss(params, state, step, s, dictionary.stored(along, s), codes)


def check(s: Settings) -> None:
    """Refuse what `dictionary.check` does, more rounds than units, targets, and an encoder that is to stay."""
    dictionary.check(s)
    dictionary.check_units("target_l0" if s.target_l0 else "k", rounds(s), s)
    if s.outputs:
        raise UserError(
            f"matching_pursuit encodes with its decoder rows, which reconstruct samples themselves: got outputs "
            f"{s.outputs}; use relu, topk, batch_topk or jumprelu"
        )
    if s.frozen == "encoder":
        raise UserError("matching_pursuit has no encoder: got frozen encoder; use frozen decoder, soft or none")


MATCHING_PURSUIT = Model(
    **dictionary.SHARED
    | {
        "name": "matching_pursuit",
        "Settings": Settings,
        "parameters": lambda s: {name: dictionary.PARAMETERS[name] for name in ("decoder_weight", "decoder_bias")},
        "terms": dictionary_loss.shared_terms,
        "init": init,
        "encode": encode,
        "loss": loss,
        # What every round leaves is held until the gradient has passed it.
        "arrays": lambda s: rounds(s) + dictionary.held(s),
        "check": check,
        "missed": ("k is an upper bound there", "batch_topk, which reaches it, or a lower target_l0"),
    }
)

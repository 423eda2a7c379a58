"""The k largest pre-activations of every sample.

    topk      f = the k largest of z, rectified       abs_topk  f = the k largest of |z|, signs kept

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3; "AbsTopK", arXiv 2510.00404.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from sae_jax.models import dictionary, rows
from sae_jax.models.base import Batch, Codes, Model, Params, Scalar, Step
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.selection import largest
from sae_jax.settings import CLOSED_UNIT, NON_NEGATIVE, POSITIVE, TRUE_OR_FALSE, Unread, UserError, static, swept


@struct.dataclass
class Settings(dictionary.Settings):
    """Settings of dictionaries that keep k codes."""

    UNREAD: ClassVar[Unread] = {**dictionary.Settings.UNREAD, ("k_warmup", 0): ("k_start",)}
    k: Any = swept(8.0, POSITIVE, "active units per sample", "unit")
    k_start: Any = swept(0, NON_NEGATIVE, "units at the start, from where k falls linearly; 0 is all", "unit")
    k_warmup: Any = swept(0.1, CLOSED_UNIT, "fraction of the steps over which k falls")
    target_l0: Any = swept(
        0.0, NON_NEGATIVE, "active units per sample: k by the name that every model knows", "unit", off=0.0
    )
    rescale: bool = static(False, TRUE_OR_FALSE, "units are chosen by z ||Wd||, their codes in units of x")


def count(s: Any) -> Scalar | Array:
    """k, by whichever name it is given."""
    return s.k if s.target_l0 is None else jnp.where(s.target_l0 > 0, s.target_l0, s.k)


def count_at(step: Step, s: Any) -> Float[Array, ""]:
    """k of a step: from k_start, or all units, down to k.

    Source: dictionary_learning, pull request 50 (annealing k over the first tenth of the steps).
    """
    begin = jnp.where(s.k_start > 0, s.k_start, s.d_hidden)
    return begin + (count(s) - begin) * step.ramp(s.k_warmup)


def scaled(params: Params, z: Codes, s: Any) -> Codes:
    """Pre-activations as they are compared: times the norms of their decoder rows where rescale says so.

    Source: SAELens 6.54.12, rescale_acts_by_decoder_norm.
    """
    return z * rows.norms(params["decoder_weight"])[None] if s.rescale else z


def among_largest(params: Params, z: Codes, k: Scalar | Array, s: Any) -> Bool[Array, "batch d_hidden"]:
    """Which codes of every sample are its round(k) largest."""
    return largest(jax.lax.stop_gradient(scaled(params, z, s)), jnp.round(k))


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = the k largest of z, rectified."""
    z = dictionary.pre_activations(params, x, s)
    return jnp.where(among_largest(params, z, count(s), s), jax.nn.relu(z), 0)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    z = dictionary.pre_activations(params, step.x, s)
    codes = jnp.where(among_largest(params, z, count_at(step, s), s), jax.nn.relu(z), 0)
    return dictionary.shared_loss(params, state, step, s, z, codes, strength=scaled(params, z, s))


def check(s: Any) -> None:
    """Refuse what `dictionary.check` does, and more active units than there are."""
    dictionary.check(s)
    dictionary.check_units("k_start", s.k_start, s)
    if s.target_l0 is None:
        dictionary.check_units("k", s.k, s)
    else:
        dictionary.check_units("target_l0", np.where(np.asarray(s.target_l0) > 0, s.target_l0, s.k), s)


TOPK = Model(
    **dictionary.SHARED
    | {
        "name": "topk",
        "Settings": Settings,
        "terms": dictionary.shared_terms,
        "encode": encode,
        "loss": loss,
        # A shorter row would never be among the largest.
        "renew": lambda params, saw, s: dictionary.renew(params, saw, s, share=1.0),
        "ramp": lambda s: s.k_warmup,
        "check": check,
    }
)


def _encode_signed(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    z = dictionary.pre_activations(params, x, s)
    return jnp.where(among_largest(params, jnp.abs(z), count(s), s), z, 0)


def _loss_signed(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    z = dictionary.pre_activations(params, step.x, s)
    size = jnp.abs(z)
    codes = jnp.where(among_largest(params, size, count_at(step, s), s), z, 0)
    # Dead units too are chosen by size, and rebuild with their signs.
    return dictionary.shared_loss(params, state, step, s, z, codes, strength=scaled(params, size, s))


def _check_signed(s: Settings) -> None:
    check(s)
    if s.dead_units.startswith("pre_activation"):
        raise UserError(
            f"abs_topk has no threshold that pre-activations lie below: got dead_units {s.dead_units}; use auxk or none"
        )


ABS_TOPK = TOPK._replace(name="abs_topk", encode=_encode_signed, loss=_loss_signed, check=_check_signed)

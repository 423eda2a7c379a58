"""k, the active units of a sample: its settings, its schedule, and what units are chosen by."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, rows
from sae_jax.models.base import Codes, Params, Scalar, Step
from sae_jax.settings import CLOSED_UNIT, NON_NEGATIVE, POSITIVE, TRUE_OR_FALSE, UserError, static, swept


@struct.dataclass
class Settings(dictionary.Settings):
    """Settings of dictionaries that keep k codes."""

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


def check(s: Any) -> None:
    """Refuse what `dictionary.check` does, and more active units than there are."""
    dictionary.check(s)
    dictionary.check_units("k_start", s.k_start, s)
    dictionary.check_units(*_asked(s), s)


def check_whole(s: Any) -> None:
    """Refuse what `check` does, and a number that is rounded to no unit."""
    check(s)
    name, value = _asked(s)
    least = float(np.min(value))
    if round(least) < 1:
        raise UserError(f"{name} must round to at least 1: got {least:g}; use 1, or batch_topk, which keeps fractions")


def _asked(s: Any) -> tuple[str, Any]:
    """By which name k is given, and its values; computed without JAX, whose devices are not chosen yet."""
    if s.target_l0 is None:
        return "k", s.k
    return "target_l0", np.where(np.asarray(s.target_l0) > 0, s.target_l0, s.k)

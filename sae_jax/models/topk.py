"""The k largest pre-activations of every sample.

    topk      f = the k largest of z, rectified       abs_topk  f = the k largest of |z|, signs kept

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3; "AbsTopK", arXiv 2510.00404.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, rows, sparse
from sae_jax.models.base import Batch, Codes, Loss, Model, Params, Scalar, Step
from sae_jax.models.choice import largest_of_samples
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


def compared(params: Params, x: Batch, s: Any, signed: bool = False) -> tuple[Codes, Codes]:
    """(z, what its units are chosen by), each [batch, d_hidden]; signed says that these are sizes."""
    z = dictionary.pre_activations(params, x, s)
    return z, scaled(params, jnp.abs(z) if signed else z, s)


def _codes(z: Codes, strength: Codes, k: Scalar | Array, signed: bool) -> Float[Array, "batch d_hidden"]:
    """Pre-activations that are among the round(k) largest of their sample, rectified unless signs are to stay."""
    chosen = largest(jax.lax.stop_gradient(strength), jnp.round(k))
    return jnp.where(chosen, z if signed else jax.nn.relu(z), 0)


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f = the k largest of z, rectified."""
    return _codes(*compared(params, x, s), count(s), False)


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    return _loss(params, state, step, s, False)


def step_codes(params: Params, step: Step, s: Any, signed: bool = False) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them, with its k."""
    return _of_step(params, step, s, signed)[2]


def _of_step(params: Params, step: Step, s: Any, signed: bool) -> tuple[Codes, Codes, Array]:
    """(z, what its units are chosen by, codes), each [batch, d_hidden], as the step stores them."""
    z, strength = dictionary.stored(compared(params, step.x, s, signed), s)
    return z, strength, _codes(z, strength, count_at(step, s), signed)


def _loss(params: Params, state: Memory | None, step: Step, s: Any, signed: bool) -> tuple[dict[str, Array], Seen]:
    # Dead units too are chosen by size where signs stay, and rebuild with them.
    z, strength, codes = _of_step(params, step, s, signed)
    return dictionary_loss.shared_loss(params, state, step, s, z, codes, strength=strength)


def most_active(s: Any) -> int | None:
    """The most active units of a sample of any lane, k having fallen; None where all units are to be multiplied.

    Args:
        s: settings of all lanes, swept leaves [lanes].
    """
    if (s.products, s.activation_dtype) != ("float32", "float32") or s.dead_units.startswith("pre_activation"):
        return None
    most = math.ceil(float(np.max(np.asarray(count(s)))))
    return most if most * sparse.WORTH <= s.d_hidden else None


def sparse_loss(dense: Loss, s: Any, signed: bool = False) -> Loss | None:
    """The same loss, whose codes are a list, for lanes of such settings; None where that is not worth while."""
    most = most_active(s) if dense is (_loss_signed if signed else loss) else None
    return None if most is None else _sparse_loss(most, signed)


@functools.lru_cache(maxsize=64)
def _sparse_loss(most: int, signed: bool) -> Loss:
    """One function for every such number of active units: programs are compiled for each."""

    def loss(params: Params, state: Memory | None, step: Step, s: Any) -> tuple[dict[str, Array], Seen]:
        k = jnp.round(count_at(step, s))
        z, strength = compared(jax.lax.stop_gradient(params), step.x, s, signed)
        choice = largest_of_samples(z, strength, k, most, step.across)

        def few(params: Params, helped: bool) -> tuple[dict[str, Array], Seen]:
            codes = sparse.codes_of(params, dictionary.subtracted(params, s), step.x, choice, rectify=not signed)
            return dictionary_loss.sparse_loss(
                params, state, step, s, codes, lambda: compared(params, step.x, s, signed), helped
            )

        def every(params: Params) -> tuple[dict[str, Array], Seen]:
            return _loss(params, state, step, s, signed)

        return sparse.by_list_or_all(choice.complete, dictionary_loss.any_to_help(state, s), few, every, params)

    return loss


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
        "terms": dictionary_loss.shared_terms,
        "encode": encode,
        "loss": loss,
        "step_codes": step_codes,
        "sparse": sparse_loss,
        # A shorter row would never be among the largest.
        "renew": lambda params, saw, s: dictionary.renew(params, saw, s, share=1.0),
        "ramp": lambda s: s.k_warmup,
        "check": check,
    }
)


def _encode_signed(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    return _codes(*compared(params, x, s, True), count(s), True)


def _loss_signed(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    return _loss(params, state, step, s, True)


def _check_signed(s: Settings) -> None:
    check(s)
    if s.dead_units.startswith("pre_activation"):
        raise UserError(
            f"abs_topk has no threshold that pre-activations lie below: got dead_units {s.dead_units}; use auxk or none"
        )


ABS_TOPK = TOPK._replace(
    name="abs_topk",
    encode=_encode_signed,
    loss=_loss_signed,
    step_codes=functools.partial(step_codes, signed=True),
    sparse=functools.partial(sparse_loss, signed=True),
    check=_check_signed,
)

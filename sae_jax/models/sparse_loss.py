"""The loss of a dictionary that keeps few codes, by a list of them where that is faster than products of all.

The list has room for so many codes as are active once k has fallen. Where it does not hold all that were chosen, as
while k falls, the loss is that of all codes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from sae_jax.models import dictionary, dictionary_loss, sparse
from sae_jax.models.base import Codes, Loss, Params, Scalar, Step
from sae_jax.models.choice import Choice
from sae_jax.models.dictionary_memory import Memory, Seen


def _unchanged(seen: Seen, *_: Any) -> Seen:
    return seen


class Selection(NamedTuple):
    """How an architecture chooses few codes.

    Attributes:
        loss: of all codes, the architecture's own.
        k: settings -> active units per sample.
        compared: (parameters, x, settings) -> (z, what units are chosen by), each [batch, d_hidden].
        listed: (parameters, Step, settings, active units of a sample that there is room for) -> (which codes of the
            batch are chosen, as a list; what units are chosen by), neither with a gradient.
        signed: whether signs are kept; else codes are rectified.
        seen: (what is seen of the codes, which are chosen, what units are chosen by, Step) -> what is seen, with what
            the architecture's memory needs beside it.
    """

    loss: Loss
    k: Callable[[Any], Scalar | Array]
    compared: Callable[[Params, Any, Any], tuple[Codes, Codes]]
    listed: Callable[[Params, Step, Any, int], tuple[Choice, Codes]]
    signed: bool = False
    seen: Callable[[Seen, Choice, Codes, Step], Seen] = _unchanged


def by_list(selection: Selection, dense: Loss, s: Any) -> Loss | None:
    """The same loss, whose codes are a list, for lanes of such settings; None where that is not worth while.

    Args:
        selection: how codes are chosen.
        dense: a model's loss, of which there is no such form where it is not the architecture's own.
        s: settings of all lanes, swept leaves [lanes].
    """
    most = _most_active(selection, s) if dense is selection.loss else None
    return None if most is None else _by_list(selection, most)


def _most_active(selection: Selection, s: Any) -> int | None:
    """The most active units of a sample of any lane, k having fallen; None where all units are to be multiplied."""
    if (s.products, s.activation_dtype) != ("float32", "float32") or s.dead_units.startswith("pre_activation"):
        return None
    most = math.ceil(float(np.max(np.asarray(selection.k(s)))))
    return most if most * sparse.WORTH <= s.d_hidden else None


@functools.lru_cache(maxsize=128)
def _by_list(selection: Selection, most: int) -> Loss:
    """One function for every such number of active units: programs are compiled for each."""

    def loss(params: Params, state: Memory | None, step: Step, s: Any) -> tuple[dict[str, Array], Seen]:
        choice, strength = selection.listed(params, step, s, most)

        def few(params: Params, helped: bool) -> tuple[dict[str, Array], Seen]:
            codes = sparse.codes_of(
                params, dictionary.subtracted(params, s), step.x, choice, rectify=not selection.signed
            )
            values, seen = dictionary_loss.shared_loss_of_list(
                params, state, step, s, codes, lambda: selection.compared(params, step.x, s), helped
            )
            return values, selection.seen(seen, choice, strength, step)

        def every(params: Params) -> tuple[dict[str, Array], Seen]:
            return selection.loss(params, state, step, s)

        return sparse.by_list_or_all(choice.complete, dictionary_loss.any_to_help(state, s), few, every, params)

    return loss

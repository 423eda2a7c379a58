"""What a dictionary carries from step to step beside its parameters, and what it takes from each batch for that."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array

from sae_jax.models import dead
from sae_jax.models.base import Step
from sae_jax.models.linear import widened


@struct.dataclass
class Memory:
    """What a dictionary carries; what is off is None.

    Attributes:
        silence: DeadUnits, samples since each unit last fired.
        rates: SparsityState, the running firing rate of every unit.
        steering: Steering of the coefficient that a target L0 is reached by.
        threshold: SparsityState of a single number, the running threshold of the codes at inference.
    """

    silence: Any = None
    rates: Any = None
    steering: Any = None
    threshold: Any = None


class Seen(NamedTuple):
    """What `update` is to see of a batch.

    Attributes:
        fired: whether each unit fired on a sample of the whole batch, [d_hidden].
        samples: of the whole batch.
        l0: mean number of active units.
        rates: share of the samples on which each unit fired, [d_hidden].
        least: smallest positive code of the whole batch; infinite where there is none.
        replaced: which units begin anew after this step, [d_hidden]; None where none ever do.
        replacement: the directions of their new rows, [d_hidden, d_in].
    """

    fired: Array
    samples: Array
    l0: Array
    rates: Array
    least: Array
    replaced: Any = None
    replacement: Any = None


def seen_of(rates: Array, codes: Array | np.ndarray, step: Step) -> Seen:
    """What a memory is to see of a batch.

    Args:
        rates: share of this device's samples on which each unit fires, [d_hidden].
        codes: all that are not 0, of any shape.
        step: of the batch.
    """
    rates = step.across.mean(rates)
    return Seen(
        fired=rates > 0,
        samples=step.across.sum(jnp.int32(len(step.x))),
        l0=jnp.sum(rates),
        rates=rates,
        least=-step.across.max(widened(jnp.max(jnp.where(codes > 0, -codes, -jnp.inf)))),
    )


def start_memory(s: Any) -> Memory:
    """What is carried where nothing but dead units is to be known."""
    watched = s.dead_units in ("auxk", "pre_activation_dead", "resampling")
    return Memory(silence=dead.start(s.d_hidden) if watched else None)


def update_memory(state: Memory, seen: Seen, s: Any) -> Memory:
    """Count the silence of every unit; of one that begins anew from here."""
    if state.silence is None:
        return state
    fired = seen.fired if seen.replaced is None else seen.fired | seen.replaced
    return dataclasses.replace(state, silence=dead.update(state.silence, fired, seen.samples))

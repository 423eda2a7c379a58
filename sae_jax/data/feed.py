"""Where the batches of a training come from: pure functions of a seed's key and the step.

Nothing is carried between steps, so that a resumed run needs no position in its data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.data.batches import batch_indices, device_rows
from sae_jax.data.normalise import Normalisation
from sae_jax.models.base import Key, Scalar
from sae_jax.storage.arrays import aligned

# What a block of batches from the host may take of a device's memory.
HOST_BLOCK_BYTES = 2**26
# Reading them takes time that a short training would wait for in vain.
MOST_STEPS = 64


# Reads batches on the host; see `from_host`.
Batches: TypeAlias = Callable[[int, int, Normalisation | None], Iterator[np.ndarray]]


class Feed(NamedTuple):
    """A source of batches.

    Attributes:
        draw: (block, key of the seed's batches, step, batch_size, axis_name) -> batch [batch, d_in]: traced, and this
            device's share of the batch where it is split over a named axis.
        block: (first step, batch_size, stop) -> pytree of arrays that `draw` reads from that step on, for `steps` of
            them, and not from the step `stop` on.
        steps: (batch_size) -> how many steps a block serves; None where one block serves all.
        normalised: Normalisation -> the same source of normalised samples; None where they must stay as they are.
    """

    draw: Callable[[Any, Key, Scalar | Array, int, str | None], Array]
    block: Callable[[int, int, int], Any]
    steps: Callable[[int], int | None] = lambda batch_size: None
    normalised: Callable[[Normalisation], Feed] | None = None


class HostBlock(NamedTuple):
    """Batches of some steps: the first step, int32, and [steps, batch, d_in]."""

    first: Any
    batches: Any


def resident(rows: Float[np.ndarray | Array, "samples d_in"]) -> Feed:
    """Minibatches of an array that lies on the device, by a fresh permutation each epoch and seed."""
    return Feed(_draw_resident, lambda first, batch_size, stop: rows)


def _draw_resident(rows: Array, key: Key, step: Scalar | Array, batch_size: int, axis_name: str | None) -> Array:
    return rows[device_rows(batch_indices(key, step, rows.shape[0], batch_size), axis_name)]


def draw_whole(rows: Array, key: Key, step: Scalar | Array, batch_size: int, axis_name: str | None) -> Array:
    """All rows of a resident array at every step: what a full-batch optimizer takes."""
    return rows


def generated(generate: Callable[..., Array], *arrays: Any) -> Feed:
    """Endless samples drawn inside the step.

    Args:
        generate: (*arrays, key, batch_size) -> batch [batch, d_in], pure; it gets another key for every seed and step.
        arrays: pytrees of arrays that it reads; a program is compiled for their shapes, and again for none of the same.
    """
    return Feed(_drawing(generate), lambda first, batch_size, stop: arrays)


@functools.lru_cache(maxsize=64)
def _drawing(generate: Callable[..., Array]) -> Callable[..., Array]:
    def draw(block: Any, key: Key, step: Scalar | Array, batch_size: int, axis_name: str | None) -> Array:
        # Every device draws the whole batch and takes its share, so that samples do not depend on their number.
        return device_rows(generate(*block, jax.random.fold_in(key, step), batch_size), axis_name)

    return draw


def from_host(batches: Batches, d_in: int, normalisation: Normalisation | None = None) -> Feed:
    """Batches that the host reads, a block of steps at a time; all lanes share what is read once.

    Blocks are mostly asked for one after another, so that an iterator may read ahead of them. One that is asked for
    out of turn begins another iterator.

    Args:
        batches: (first step, batch_size, normalisation) -> the batches [batch, d_in] of that step and of those after
            it, without end, normalised unless that is None; the same for the same step.
        d_in: values of a sample.
        normalisation: of every batch.
    """
    following: dict[tuple[int, int], Iterator[np.ndarray]] = {}

    def steps(batch_size: int) -> int:
        return max(1, min(MOST_STEPS, HOST_BLOCK_BYTES // (4 * batch_size * d_in)))

    def block(first: int, batch_size: int, stop: int) -> HostBlock:
        together, end = aligned((steps(batch_size), batch_size, d_in)), max(first, stop)
        reading = following.pop((first, batch_size), None)
        following.clear()
        if first < end and reading is None:
            reading = iter(batches(first, batch_size, normalisation))
        for place in range(len(together)):
            # What is never read has the shape of the others, so that one program does for all.
            together[place] = next(reading) if reading and first + place < end else 0
        if reading and first + len(together) < end:
            following[first + len(together), batch_size] = reading
        return HostBlock(np.int32(first), together)

    return Feed(_draw_from_host, block, steps, functools.partial(from_host, batches, d_in))


def _draw_from_host(block: HostBlock, key: Key, step: Scalar | Array, batch_size: int, axis_name: str | None) -> Array:
    batch = jax.lax.dynamic_index_in_dim(block.batches, jnp.asarray(step) - block.first, keepdims=False)
    return device_rows(batch, axis_name)

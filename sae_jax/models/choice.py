"""Which codes of a batch are to be made, as a list in the order of their units."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sae_jax.models.base import Across, Codes, Scalar
from sae_jax.models.selection import bound_of_batch, bound_of_samples, largest, largest_of_batch

# Entries that a turn of the loop over them takes: rows of so many fit into the cache of a core.
TURN = 256
# Of units that reach the bound of a choice, room for so many times as many as are to be chosen, and for a few more.
OFFERED, FEW = 1.5, 8
# Groups of units are so large at the most, and small enough that there are so many for each chosen unit.
LARGEST_GROUP, GROUPS = 16, 8
# Where a batch is split, room for the entries of a device above its equal share.
SLACK = 1.25
WORD = 32
# A code of a batch, by its sample and unit, is one such number; the last one is that of none.
CODES = 2**32
UNCHOSEN = np.uint32(CODES - 1)


class Choice(NamedTuple):
    """Which codes of a batch are to be made, in the order of their units.

    Attributes:
        samples, units: of every entry, [entries].
        chosen: whether it is one; the list may be longer than there are codes, [entries].
        pre_activations: z of every entry, without gradient, [entries].
        complete: whether the list holds all that were to be chosen.
    """

    samples: Int[Array, " entries"]
    units: Int[Array, " entries"]
    chosen: Bool[Array, " entries"]
    pre_activations: Float[Array, " entries"]
    complete: Bool[Array, ""]


def largest_of_samples(z: Codes, strength: Codes, k: Scalar | Array, most: int, across: Across) -> Choice:
    """The k largest of every sample that are positive; those that are equal to the smallest of them are chosen too.

    Units lie in groups: a bound that the largest of k groups reach is one that k units do, and few others. Among those
    are the k largest. The list is incomplete where a sample has too many of them, or NaN.

    Args:
        z: pre-activations, [batch, d_hidden].
        strength: what is compared, [batch, d_hidden].
        k: how many, which may be traced; the list is incomplete where it is below 1 or above `most`.
        most: entries of a sample, fewer than there are units.
        across: sums over the devices.
    """
    batch, number = len(strength), jnp.clip(k, 1, most)
    maxima = _of_groups(strength, most)
    bound = bound_of_samples(maxima, number)
    samples, units, ends = reaching(strength, bound[:, None], round(OFFERED * most * batch) + TURN)
    sizes, starts = strength[samples, units], jnp.pad(ends[:-1], (1, 0))
    places = starts[:, None] + jnp.arange(round(OFFERED * most) + FEW)[None]
    offered = jnp.where(places < ends[:, None], sizes[places], 0)
    chosen = largest(offered, number) & (offered > 0)
    complete = (k >= 1) & (k <= most) & (ends[-1] <= len(units)) & jnp.all(ends - starts <= places.shape[1])
    complete &= ~jnp.any(jnp.isnan(maxima))
    samples = jnp.broadcast_to(jnp.arange(batch)[:, None], places.shape)
    return _listed(z, samples, units[places], chosen, most * batch + TURN, complete, across)


def largest_of_whole(z: Codes, strength: Codes, total: Scalar | Array, most: int, across: Across) -> Choice:
    """The `total` largest of a whole batch that are positive.

    As in `largest_of_samples`, by the largest of the groups of the whole batch. The list is incomplete where many more
    units reach the bound, as where a few samples have most of the active units, where there is NaN, and where a device
    has no room.

    Args:
        z: pre-activations, [batch, d_hidden]; this device's share.
        strength: what is compared, [batch, d_hidden].
        total: how many of the whole batch, which may be traced.
        most: how many a sample has on average, at the most.
        across: sums over the devices.
    """
    expected = most * len(strength) * (1.0 if across.axis is None else SLACK)
    maxima = _of_groups(strength, most)
    bound = bound_of_batch(maxima, total, across)
    samples, units, ends = reaching(strength, bound, round(OFFERED * expected) + TURN)
    offered = jnp.where(jnp.arange(len(units)) < ends[-1], strength[samples, units], 0)
    chosen = largest_of_batch(offered[None], total, across)[0] & (offered > 0)
    complete = (ends[-1] <= len(units)) & ~jnp.any(jnp.isnan(maxima))
    return _listed(z, samples, units, chosen, round(expected) + TURN, complete, across)


def reaching(
    strength: Codes, bound: Array, size: int
) -> tuple[Int[Array, " size"], Int[Array, " size"], Int[Array, " batch"]]:
    """The codes that are positive and at least a bound, as a list, sample by sample.

    Units lie in 32 parts of equal width: bit b of word j of a sample is unit b width + j. Words are few enough for sums
    up to each of them.

    Args:
        strength: [batch, d_hidden].
        bound: >= 0, of all samples or [batch, 1].
        size: entries of the list; those above the number of such codes mean nothing, and are inside the array.

    Returns:
        (samples, units, how many such codes there are up to the end of each sample).
    """
    batch, d_hidden = strength.shape
    parts = _in_parts(strength, WORD)
    width = parts.shape[2]
    bound = jnp.broadcast_to(bound, (batch, 1))[:, None]
    bits = ((parts >= bound) & (parts > 0)).astype(jnp.uint32) << jnp.arange(WORD, dtype=jnp.uint32)[None, :, None]
    words = jnp.sum(bits, axis=1, dtype=jnp.uint32).reshape(-1)
    counts = jax.lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(counts)
    word = jnp.repeat(jnp.arange(len(words)), counts, total_repeat_length=size)
    rank = jnp.arange(size) - (ends - counts)[word]
    units = _bit_of_rank(words[word], rank) * width + word % width
    return word // width, jnp.minimum(units, d_hidden - 1), ends[width - 1 :: width]


def _of_groups(strength: Codes, most: int) -> Float[Array, "batch groups"]:
    """The largest of every group of units."""
    size = max(1, min(LARGEST_GROUP, strength.shape[1] // (GROUPS * most)))
    return jnp.max(_in_parts(strength, size), axis=1)


def _in_parts(strength: Codes, parts: int) -> Float[Array, "batch parts width"]:
    """Units in parts of equal width, 0 where the last one has none."""
    batch, d_hidden = strength.shape
    return jnp.pad(strength, ((0, 0), (0, -d_hidden % parts))).reshape(batch, parts, -1)


def _bit_of_rank(words: Array, rank: Array) -> Array:
    """The place of the bit of a word before which so many are set, of [entries]."""
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(words & jnp.uint32((1 << half) - 1)).astype(rank.dtype)
        above = rank >= below
        words = jnp.where(above, words >> half, words)
        rank, place = rank - jnp.where(above, below, 0), place + jnp.where(above, half, 0)
    return place


def _listed(
    z: Codes, samples: Array, units: Array, chosen: Array, room: int, complete: Array, across: Across
) -> Choice:
    """Entries in the order of their units, as many as a whole number of turns, the last ones not chosen."""
    batch, d_hidden = z.shape
    # One number each, as sorting several of each takes five times as long.
    keys = jnp.where(chosen, jnp.asarray(units, jnp.uint32) * batch + jnp.asarray(samples, jnp.uint32), UNCHOSEN)
    keys = jnp.sort(keys.reshape(-1))[:room]
    missing = across.sum((~complete | (jnp.sum(chosen) > len(keys))).astype(jnp.float32))
    keys = jnp.pad(keys, (0, -len(keys) % min(TURN, len(keys))), constant_values=UNCHOSEN)
    listed = keys < UNCHOSEN
    samples = jnp.where(listed, keys % batch, 0).astype(jnp.int32)
    units = jnp.where(listed, keys // batch, d_hidden - 1).astype(jnp.int32)
    return Choice(samples, units, listed, jnp.asarray(z)[samples, units], missing == 0)

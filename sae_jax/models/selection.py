"""The largest pre-activations of a sample, a unit or a batch, which codes a choice left out, and the schedule of k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sae_jax.models.base import Across, Codes, Scalar, Step

# Of a float the first 21 bits are its sign, its exponent and 12 of its fraction.
BITS, HALF, ROUGH = 32, 16, 21
# Odd, so that units of up to 2^16 have ranks of their own: the halves of the golden ratio's share of 2^32.
RANKS = (0x9E37, 0x79B1)


def largest(pre_activations: Codes, k: Scalar | Array) -> Bool[Array, "batch d_hidden"]:
    """Which pre-activations are among the k largest of their sample, [batch, d_hidden]; k may be traced.

    `lax.top_k` needs a k that is fixed when the program is compiled. Here the k-th largest value is found bit by bit,
    as the largest number that at least k values reach, so that one program serves every k. Equal values stay together;
    those of bfloat16, of which many are equal, are told apart by their units.

    Args:
        pre_activations: [batch, d_hidden].
        k: how many to keep, >= 1; d_hidden and more keep all.
    """
    ordered = _ordered(pre_activations)
    return ordered >= _of_samples(ordered, k)[:, None]


def largest_of_batch(values: Codes, count: Scalar | Array, across: Across) -> Bool[Array, "batch d_hidden"]:
    """Which values are among the `count` largest of the whole batch, however many devices it is split over.

    The search of `largest` with counts that are summed over the devices: 32 numbers are exchanged, and no value is.

    Args:
        values: this device's share, [batch, d_hidden].
        count: how many to keep of the whole batch, >= 1.
        across: sums over the devices.

    Source: Bussmann, Leask and Nanda 2024, "BatchTopK sparse autoencoders", equation 3 (the choice).
    """
    ordered = _ordered(values)
    return ordered >= _of_batch(ordered, count, across)


def bound_of_batch(values: Codes, count: Scalar | Array, across: Across) -> Float[Array, ""]:
    """What the `count` largest values of the whole batch are at least, within 1/4096 of the least of them.

    It is 0 where that is negative, and where there are fewer.

    Args:
        values, count, across: as of `largest_of_batch`, the values float32.
    """
    return _not_negative(_of_batch(_ordered(values), count, across, ROUGH))


def bound_of_samples(values: Codes, k: Scalar | Array) -> Float[Array, " batch"]:
    """What the k largest values of each sample are at least, as `bound_of_batch` says it of a batch."""
    return _not_negative(_of_samples(_ordered(values), k, ROUGH))


def _not_negative(ordered: Array) -> Array:
    """The floats of numbers that `_ordered` gave, or 0 for those of negative ones."""
    sign = jnp.uint32(1 << BITS - 1)
    return jax.lax.bitcast_convert_type(jnp.where(ordered & sign, ordered ^ sign, 0), jnp.float32)


def _of_samples(ordered: Array, k: Scalar | Array, bits: int = BITS) -> Array:
    def enough(tried: Array) -> Array:
        return _counted(ordered >= tried[:, None]) >= jnp.minimum(k, ordered.shape[1])

    return _greatest(enough, ordered.shape[:1], bits)


def _of_batch(ordered: Array, count: Scalar | Array, across: Across, bits: int = BITS) -> Array:
    def enough(tried: Array) -> Array:
        return across.sum(jnp.sum(_counted(ordered >= tried), dtype=jnp.int32)) >= count

    return _greatest(enough, (), bits)


def _counted(mask: Array) -> Array:
    """How many of each row; a vector of a processor holds twice as many narrow counts."""
    return jnp.sum(mask, axis=1, dtype=jnp.uint16 if mask.shape[1] < 2**16 else jnp.uint32)


def largest_of_units(
    by_unit: Float[Array, "d_hidden batch"], count: Scalar | Array, across: Across
) -> Bool[Array, "d_hidden batch"]:
    """Which values are among the `count` largest of their unit on the whole batch, over however many devices.

    Args:
        by_unit: this device's share, [d_hidden, batch].
        count: how many samples to keep of every unit, >= 1; the whole batch and more keep all.
        across: sums over the devices: 32 numbers of every unit are exchanged.

    Source: Makhzani and Frey 2015, "Winner-take-all autoencoders", section 2 (lifetime sparsity).
    """
    ordered = _ordered(by_unit)
    most = jnp.minimum(count, across.sum(jnp.int32(ordered.shape[1])))

    def enough(tried: Array) -> Array:
        return across.sum(jnp.sum(ordered >= tried[:, None], axis=1, dtype=jnp.int32)) >= most

    return ordered >= _greatest(enough, ordered.shape[:1])[:, None]


def _ordered(values: Codes) -> Array:
    """Floats as unsigned numbers of the same order: the sign bit is flipped, and all others of negative ones.

    The lower half of a bfloat16's number is a rank among equals: another one for every unit, in another order for
    every value, so that no unit comes first at all of them.
    """
    bits = jax.lax.bitcast_convert_type(jnp.asarray(values, jnp.float32), jnp.uint32)
    top = jnp.uint32(1 << BITS - 1)
    ordered = jnp.where(bits & top, ~bits, bits | top)
    if values.dtype != jnp.bfloat16:
        return ordered
    value, unit = ordered >> HALF, jax.lax.broadcasted_iota(jnp.uint32, values.shape, 1)
    return (value << HALF) | ((unit * RANKS[0] + value * RANKS[1]) & ((1 << HALF) - 1))


def _greatest(enough: Callable[[Array], Array], shape: tuple[int, ...], bits: int = BITS) -> Array:
    """The greatest unsigned numbers [shape] for which `enough` holds, bit by bit, but for the bits after the first."""

    def next_bit(i: Array, threshold: Array) -> Array:
        tried = threshold | (jnp.uint32(1 << BITS - 1) >> i.astype(jnp.uint32))
        return jnp.where(enough(tried), tried, threshold)

    return jax.lax.fori_loop(0, bits, next_bit, jnp.zeros(shape, jnp.uint32))


def dropped(codes: Codes) -> Bool[Array, "batch d_hidden"]:
    """Which codes a choice of the largest left out: those that are exactly 0."""
    return jnp.asarray(codes) == 0


def units_at(step: Step, s: Any) -> Float[Array, ""]:
    """Units kept at a step: from the start b falling linearly to k, b + (k - b) min(1, (t + 1) / (w T)), rounded.

    From the first step on, a small k would leave alive only the units that happened to start large. Nor is a large b
    without harm: a linear autoencoder with most of its units settles in the principal subspace, and units that it has
    no use for there are not chosen again as k falls.

    Args:
        step: its ramp is read.
        s: d_hidden n, k, k_start b, of which 0 is n, and k_warmup w are read.

    Source: Makhzani and Frey 2013, section 4.2.1 ("scheduling of the sparsity level").
    """
    begin = jnp.where(s.k_start > 0, s.k_start, s.d_hidden)
    return jnp.round(jnp.where(s.k > 0, begin + (s.k - begin) * step.ramp(s.k_warmup), s.d_hidden))


def samples_per_unit(step: Step, s: Any) -> Float[Array, ""]:
    """Samples of a whole batch of B on which a unit is kept, the rounded share of `lifetime` of B; B where it is 0."""
    batch = step.across.sum(jnp.float32(len(step.x)))
    return jnp.where(s.lifetime > 0, jnp.maximum(1, jnp.round(s.lifetime * batch)), batch)

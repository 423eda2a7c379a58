"""The samples on which units are most active, and some at every height of their activity, in one pass over blocks.

Source: Bricken et al. 2023 (a unit is read from its largest activations and from intervals below them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sae_jax.models.base import Batch, Codes, Params
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import encode

if TYPE_CHECKING:
    from sae_jax.analysis.trained_lane import TrainedLane

# Active samples of a unit, drawn at random, among which its quantiles are looked for: of 512 the median's rank is off
# by .022 (one standard deviation), and all codes of all samples need not be held.
DRAWN = 512


class TopSamples(NamedTuple):
    """The samples of highest score of every unit so far, highest first.

    Attributes:
        score: [units, count]; -inf where there is no sample yet.
        code: [units, count].
        sample: its number, [units, count]; -1 where there is none.
    """

    score: Float[Array, "units count"]
    code: Float[Array, "units count"]
    sample: Int[Array, "units count"]


class Seen(NamedTuple):
    """What has been seen of every unit so far.

    Attributes:
        active: samples on which it is active, [units].
        total: sum of its codes on these, [units].
        top: the samples of the largest activations among these.
        drawn: samples drawn at random among these, as many as DRAWN.
    """

    active: Int[Array, " units"]
    total: Float[Array, " units"]
    top: TopSamples
    drawn: TopSamples


class Examples(NamedTuple):
    """Samples of every unit, by number, with its codes on them; -1 and NaN where there are no more.

    Attributes:
        density: share of the samples on which a unit is active, [units].
        mean: mean code over these, [units]; NaN where there are none.
        top, top_codes: [units, top], largest activation first.
        at_quantiles, codes_at_quantiles: [units, quantiles, each], smallest activation first.
    """

    density: np.ndarray
    mean: np.ndarray
    top: np.ndarray
    top_codes: np.ndarray
    at_quantiles: np.ndarray
    codes_at_quantiles: np.ndarray


def examples(
    lane: TrainedLane, samples: np.ndarray, rows_at_once: int, top: int, quantiles: Sequence[float], each: int
) -> Examples:
    """Look at samples block by block; of samples alike the first are kept, however large the blocks are.

    Args:
        lane: whose units are looked at.
        samples: as they were before its normalisation, [samples, d_in], at least one.
        rows_at_once: in a block.
        top: samples of the largest activations.
        quantiles: of the activations of a unit on the samples on which it is active, in [0, 1].
        each: samples at each of them; of those of a unit that is active on more than DRAWN samples, these are drawn.
    """
    number, units = len(samples), lane.d_hidden
    # The last block is as long as the others, so that one program is compiled.
    rows = min(rows_at_once, 1 << max(number - 1, 0).bit_length())
    order = np.random.default_rng(0).permutation(number).astype(np.float32)
    seen = Seen(jnp.zeros(units, jnp.int32), jnp.zeros(units), _none(units, top), _none(units, DRAWN))
    for start in range(0, number, rows):
        part = lane.normalisation.apply(np.asarray(samples[start : start + rows]))
        x, numbers, turns = np.zeros((rows, lane.d_in), np.float32), np.full(rows, -1, np.int32), np.zeros(rows)
        x[: len(part)], numbers[: len(part)] = part, np.arange(start, start + len(part))
        turns[: len(part)] = order[start : start + rows]
        seen = _after(lane.params, x, numbers, turns.astype(np.float32), lane.settings, seen)
    heights = np.where(seen.drawn.sample >= 0, strength(seen.drawn.code.T, lane.settings).T, np.inf)
    seen = jax.device_get(seen)
    drawn = _at_quantiles(seen.drawn, heights, quantiles, each)
    count = seen.active.astype(np.float32)
    mean = np.where(count > 0, seen.total / np.maximum(count, 1), np.nan)
    return Examples(count / np.float32(number), mean, seen.top.sample, _or_nan(seen.top), *drawn)


def strength(codes: Codes, settings: LaneSettings) -> Codes:
    """How strongly units are active: the code, or its magnitude where negative codes count as active too."""
    signed = settings.architecture.active(jnp.full_like(codes[:1], -1), settings.model)
    return jnp.where(signed, jnp.abs(codes), codes)


def _none(units: int, count: int) -> TopSamples:
    return TopSamples(
        jnp.full((units, count), -jnp.inf), jnp.zeros((units, count)), jnp.full((units, count), -1, jnp.int32)
    )


@jax.jit
def _after(params: Params, x: Batch, numbers: Array, turns: Array, settings: LaneSettings, seen: Seen) -> Seen:
    """What has been seen after one more block; rows whose number is -1 are none."""
    codes = encode(params, x, settings)
    active = settings.architecture.active(codes, settings.model) & (numbers >= 0)[:, None]
    return Seen(
        seen.active + jnp.sum(active, axis=0, dtype=jnp.int32),
        seen.total + jnp.sum(jnp.where(active, codes, 0), axis=0),
        _best(seen.top, jnp.where(active, strength(codes, settings), -jnp.inf), codes, numbers),
        _best(seen.drawn, jnp.where(active, -turns[:, None], -jnp.inf), codes, numbers),
    )


def _best(before: TopSamples, score: Codes, codes: Codes, numbers: Array) -> TopSamples:
    best, rows = jax.lax.top_k(score.T, min(before.score.shape[1], len(score)))
    block = (best, jnp.take_along_axis(codes.T, rows, axis=1), numbers[rows])
    # Those of before stand first, so that of equal scores the earlier sample stays.
    together = TopSamples(*(jnp.concatenate(pair, axis=1) for pair in zip(before, block, strict=True)))
    best, places = jax.lax.top_k(together.score, before.score.shape[1])
    code, sample = (jnp.take_along_axis(values, places, axis=1) for values in together[1:])
    return TopSamples(best, code, jnp.where(best > -jnp.inf, sample, -1))


def _or_nan(samples: Any) -> np.ndarray:
    return np.where(samples.sample >= 0, samples.code, np.nan).astype(np.float32)


def _at_quantiles(
    drawn: Any, heights: np.ndarray, quantiles: Sequence[float], each: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples next to one another in height, as many as `each`, around every quantile; with their codes."""
    order = np.argsort(heights, axis=1, kind="stable")
    size = np.sum(drawn.sample >= 0, axis=1)[:, None, None]
    middle = np.round(np.asarray(quantiles)[None, :, None] * np.maximum(size - 1, 0)).astype(int)
    first = np.clip(middle - (each - 1) // 2, 0, np.maximum(size - each, 0))
    places = first + np.arange(each)[None, None]
    shape, inside = places.shape, places < size
    flat = np.take_along_axis(order, np.minimum(places, order.shape[1] - 1).reshape(len(order), -1), axis=1)
    sample, code = (np.take_along_axis(values, flat, axis=1).reshape(shape) for values in (drawn.sample, drawn.code))
    return np.where(inside, sample, -1).astype(np.int32), np.where(inside, code, np.nan).astype(np.float32)

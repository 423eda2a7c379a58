"""How active each unit of a lane is on held-out samples: largest activations, some at quantiles, and a histogram."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sae_jax.analysis.top_samples import strength
from sae_jax.analysis.trained_lane import TrainedLane

TOP, EACH, BINS = 12, 4, 24
QUANTILES = (0.25, 0.5, 0.75)


class Activity(NamedTuple):
    """What is shown of every unit; samples by number, -1 and NaN where there are no more.

    Attributes:
        density: share of the samples on which a unit is active, [units].
        top, top_codes: samples of the largest activations, largest first, [units, TOP].
        at_quantiles, codes_at_quantiles: around QUANTILES of the activations, [units, quantiles, EACH].
        histogram: active samples by activation, in BINS equal parts of 0 to the largest one, [units, BINS].
    """

    density: np.ndarray
    top: np.ndarray
    top_codes: np.ndarray
    at_quantiles: np.ndarray
    codes_at_quantiles: np.ndarray
    histogram: np.ndarray


def activity(lane: TrainedLane, samples: np.ndarray) -> Activity:
    """Look at all codes at once, each unit's active samples in the order of their activations.

    The samples are those of `sae_jax.analysis.units`, except that those at quantiles are looked for among all of a
    unit's active samples. Samples x units numbers are held a few times over.

    Args:
        lane: whose units are looked at.
        samples: as they were before its normalisation, [samples, d_in].
    """
    codes = lane.encode(samples)
    active = np.asarray(lane.settings.architecture.active(jnp.asarray(codes), lane.settings.model))
    heights = np.where(active, np.asarray(strength(jnp.asarray(codes), lane.settings)), -np.inf).T
    order = np.argsort(-heights, axis=1, kind="stable").astype(np.int32)
    count = active.sum(axis=0)
    ranks = np.broadcast_to(np.arange(TOP), (len(count), TOP))
    top, top_codes = _at_ranks(ranks, order, codes, count)
    # From the smallest activation up, as quantiles are counted.
    middle = np.round(np.asarray(QUANTILES)[None, :, None] * np.maximum(count[:, None, None] - 1, 0)).astype(int)
    first = np.clip(middle - (EACH - 1) // 2, 0, np.maximum(count[:, None, None] - EACH, 0))
    upwards = (first + np.arange(EACH)).reshape(len(count), -1)
    quantile_samples, values = _at_ranks(
        np.where(upwards < count[:, None], count[:, None] - 1 - upwards, -1), order, codes, count
    )
    shape = (len(count), len(QUANTILES), EACH)
    return Activity(
        (count / len(samples)).astype(np.float32),
        *(top, top_codes, quantile_samples.reshape(shape), values.reshape(shape)),
        _histogram(heights),
    )


def _at_ranks(
    ranks: np.ndarray, order: np.ndarray, codes: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of every unit by rank of their activation, [units, ranks], and its codes on them."""
    in_range = (ranks >= 0) & (ranks < count[:, None])
    samples = np.take_along_axis(order, np.clip(ranks, 0, order.shape[1] - 1), axis=1)
    values = codes[samples, np.arange(len(order))[:, None]]
    return np.where(in_range, samples, -1).astype(np.int32), np.where(in_range, values, np.nan).astype(np.float32)


def _histogram(heights: np.ndarray) -> np.ndarray:
    """Counts [units, BINS] of finite heights [units, samples], from 0 to each unit's own largest one."""
    highest = heights.max(axis=1, keepdims=True)
    scale = np.where(np.isfinite(highest) & (highest > 0), highest, 1)
    units = np.broadcast_to(np.arange(len(heights))[:, None], heights.shape)
    finite = np.isfinite(heights)
    bins = np.clip((heights / scale)[finite] * BINS, 0, BINS - 1).astype(int)
    counts = np.bincount(units[finite] * BINS + bins, minlength=len(heights) * BINS)
    return counts.reshape(len(heights), BINS).astype(np.int32)

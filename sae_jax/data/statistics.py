"""Statistics of the samples that parameters may start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "samples d_in"]
# Enough for a median whose error is a hundredth of the samples' spread.
MOST_ROWS = 20_000
ROUNDS, CLOSE = 100, 1e-6
# A fiftieth of the spread, more than anybody asks of gamma.
ROWS_OF_OFFSET = 2_000


def mean(rows: Rows) -> Float[np.ndarray, " d_in"]:
    """Mean of every input, summed in double precision."""
    return np.asarray(rows.mean(axis=0, dtype=float))


def geometric_median(rows: Rows) -> Float[np.ndarray, " d_in"]:
    """The point of least summed distance to the samples, by Weiszfeld's iteration; of 20,000 of them at most.

        m <- sum_i x_i / ||x_i - m||  /  sum_i 1 / ||x_i - m||

    Source: Weiszfeld 1937; Bricken et al. 2023, "Towards monosemanticity", appendix (the decoder bias's start).
    """
    some = np.asarray(rows[:: -(-len(rows) // MOST_ROWS)], float)
    centre = some.mean(axis=0)
    spread = np.sqrt(np.mean(np.square(some - centre))) or 1.0
    for _ in range(ROUNDS):
        weights = 1 / np.maximum(np.linalg.norm(some - centre, axis=1), CLOSE * spread)
        moved = weights @ some / weights.sum()
        step, centre = np.linalg.norm(moved - centre), moved
        if step < CLOSE * spread:
            break
    return centre


def offset(rows: Rows) -> float:
    """gamma = ||mean|| / ||std||: how far samples lie from 0 in units of their spread; of 2,000 of them at most.

    Infinite where they are equal.

    Source: arXiv 2605.31518 (it predicts the share of dead units of dictionaries whose decoder bias starts at 0).
    """
    some = np.asarray(rows[:: -(-len(rows) // ROWS_OF_OFFSET)], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.linalg.norm(some.std(axis=0))
        return float(np.nan_to_num(np.linalg.norm(mean(some)) / spread, nan=0.0, posinf=np.inf))


STATISTICS = {"mean": mean, "median": geometric_median}


def statistics_of(rows: Rows, names: Sequence[str]) -> dict[str, Float[np.ndarray, " d_in"]]:
    """Statistics of samples by name, float32."""
    return {name: STATISTICS[name](rows).astype(np.float32) for name in names}

"""How alike the dictionaries of different seeds are, while they are trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from sae_jax.storage.arrays import Opener
from sae_jax.sweeps.chunk import SNAPSHOTS
from sae_jax.sweeps.dataset import CONSISTENCY, array_of, places_of_all, variables_of_all
from sae_jax.sweeps.study import Study


def matched_cosine(first: Float[np.ndarray, "units d_in"], second: Float[np.ndarray, "units d_in"]) -> float:
    """Mean cosine of the rows of two dictionaries, matched one to one so that it is largest.

    Rows that are drawn at random have one above 0, the higher the fewer inputs there are: that of untrained lanes.

    Source: "Ablating archetypes", arXiv 2606.02061 (compare across seeds, and over training).
    """
    from scipy.optimize import linear_sum_assignment

    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (first, second)]
    cosines = unit[0] @ unit[1].T
    return float(np.mean(cosines[linear_sum_assignment(cosines, maximize=True)]))


def seed_consistency(rows: Float[np.ndarray, "seeds snapshots units d_in"]) -> Float[np.ndarray, "seeds snapshots"]:
    """Of each seed's dictionary, the mean `matched_cosine` with those of the other seeds that are there."""
    seeds, snapshots = rows.shape[:2]
    cosines = np.full((seeds, seeds, snapshots), np.nan, np.float32)
    for one, other in itertools.combinations(range(seeds), 2):
        for step in range(snapshots):
            if np.isfinite(rows[one, step]).all() and np.isfinite(rows[other, step]).all():
                cosines[one, other, step] = cosines[other, one, step] = matched_cosine(
                    rows[one, step], rows[other, step]
                )
    counts = np.isfinite(cosines).sum(axis=1)
    return np.where(counts > 0, np.nansum(cosines, axis=1) / np.maximum(counts, 1), np.nan).astype(np.float32)


def put_consistency(
    study: Study, opened: Opener, number: int, values: Mapping[str, np.ndarray], cells: np.ndarray, seeds: np.ndarray
) -> None:
    """Hold the decoder rows of finished lanes, and compare the seeds of every cell whose last seed is among them.

    Lanes are finished seed by seed, so that all others of the cell are held by then. Arguments as in `put`.
    """
    if SNAPSHOTS not in values:
        return
    point, last = study.points[number], len(study.grid.seeds) - 1
    shape = (math.prod(study.grid.shape[:-1]), last + 1, *values[SNAPSHOTS].shape[1:])
    rows = opened(f"{SNAPSHOTS}_{number}", shape, np.float32)
    # What a diverged lane holds says nothing of its settings.
    diverged = (values["diverged_at"] >= 0)[:, None, None, None]
    rows[cells, seeds] = np.where(diverged, np.nan, values[SNAPSHOTS]) if diverged.any() else values[SNAPSHOTS]
    array = array_of(study, opened, CONSISTENCY, variables_of_all(study.points)[CONSISTENCY])
    steps = places_of_all(study.points, point)["snapshot"]
    for cell in cells[seeds == last]:
        place = tuple(int(np.ravel(one)[0]) for one in study.grid.position(point.labels, np.array([cell])))
        array[place][:, steps] = seed_consistency(rows[cell])

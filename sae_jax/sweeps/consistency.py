"""How alike the dictionaries of different seeds are, while they are trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from sae_jax.storage.arrays import Opener
from sae_jax.sweeps.chunk import SNAPSHOTS
from sae_jax.sweeps.dataset import CONSISTENCY, Frame


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
    there = np.isfinite(cosines).sum(axis=1)
    return np.where(there > 0, np.nansum(cosines, axis=1) / np.maximum(there, 1), np.nan).astype(np.float32)


class Snapshots:
    """Decoder rows of all lanes at some steps, program by program, held until all seeds of a cell are there."""

    def __init__(self, opened: Opener) -> None:
        self._opened, self._arrays = opened, dict[int, np.ndarray]()

    def put(
        self, number: int, sizes: tuple[int, int], values: Mapping[str, np.ndarray], where: tuple[np.ndarray, ...]
    ) -> None:
        """Take what finished lanes of a point hold.

        Args:
            number: of the point.
            sizes: of its cells, and of the seeds.
            values: arrays of the lanes by name, [lanes, ...].
            where: positions of the lanes among the cells and among the seeds.
        """
        if SNAPSHOTS not in values:
            return
        if number not in self._arrays:
            shape = (*sizes, *values[SNAPSHOTS].shape[1:])
            self._arrays[number] = self._opened(f"{SNAPSHOTS}_{number}", shape, np.float32)
            self._arrays[number][...] = np.nan
        # What a diverged lane holds says nothing of its settings.
        rows, diverged = values[SNAPSHOTS], values["diverged_at"] >= 0
        self._arrays[number][where] = np.where(diverged[:, None, None, None], np.nan, rows) if diverged.any() else rows

    def compare(self, frame: Frame) -> None:
        """Put the consistency of every cell's seeds where the lanes are."""
        for number, rows in self._arrays.items():
            point, steps = frame.points[number], frame.inside(frame.points[number])["snapshot"]
            array = frame.array(CONSISTENCY, frame.variables[CONSISTENCY])
            for cell in range(len(rows)):
                if np.isfinite(rows[cell]).any():
                    place = tuple(int(np.ravel(one)[0]) for one in frame.grid.position(point.labels, np.array([cell])))
                    array[place][:, steps] = seed_consistency(rows[cell])

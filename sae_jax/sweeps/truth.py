"""Finished lanes against the features that their samples are known to be sums of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sae_jax.data import Truth
from sae_jax.storage.checkpoints import Arrays
from sae_jax.sweeps.program import Point
from sae_jax.training.config import LaneSettings, lane_at
from sae_jax.training.lane import has_rows
from sae_jax.training.truth import TruthMeasure, lane_against_truth, measures_of_truth


def truth_measures(settings: LaneSettings, truth: Truth | None) -> dict[str, TruthMeasure]:
    """The measures against the truth that lanes have; none without a truth, or for a model without decoder rows."""
    return measures_of_truth(truth) if has_rows(settings) else {}


def truth_values(point: Point, values: Mapping[str, np.ndarray], cells: np.ndarray) -> Arrays:
    """Every measure against the truth of finished lanes, float32 [lanes], by name; NaN for lanes that diverged.

    Computed where the lanes are put, from their parameters: the matching is no work for a compiled program.

    Args:
        point: of the program whose lanes they are.
        values: arrays of the lanes by variable name, [lanes, ...].
        cells: positions of the lanes among the point's cells, [lanes].
    """
    truth = point.data.truth
    names = list(truth_measures(point.settings, truth))
    results = {name: np.full(len(cells), np.nan, np.float32) for name in names}
    if not names or truth is None:
        return results
    declared = point.settings.architecture.parameters(point.settings.model)
    for lane in np.flatnonzero(values["diverged_at"] < 0).tolist():
        params = {name: values[name][lane] for name in declared}
        measured = lane_against_truth(params, point.data.heldout, lane_at(point.settings, cells[lane]), truth)
        for name in names:
            results[name][lane] = measured[name]
    return results

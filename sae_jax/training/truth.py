"""How far a trained dictionary is the true one: measures for samples whose features are known.

Units and features are compared by |cos| of decoder rows and true directions: [units, features] below. A pair is a unit
and a feature that belong to each other in the one-to-one matching of the largest sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sae_jax.data.truth import Truth
from sae_jax.models.base import Batch, Params
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import encode
from sae_jax.training.lane import ROWS

# Numbers of codes that are held at once.
PIECE = 2**26

Likeness = Float[np.ndarray, "units features"]


class TruthMeasure(NamedTuple):
    """A measure against the truth: label, units, whether the best lane has the lowest value."""

    label: str
    units: str = "1"
    lower_is_better: bool = False


MEASURES = {
    "truth_mcc": TruthMeasure("mean |cos| of decoder rows and true directions that are matched one to one"),
    "truth_mmcs": TruthMeasure("mean over true directions of the largest |cos| to a decoder row"),
    "truth_uniqueness": TruthMeasure("true directions that are the nearest one of a unit, per unit"),
    "truth_f1": TruthMeasure("F1 of a unit's firing against that of its nearest true feature, mean over units"),
    "truth_shrinkage": TruthMeasure("slope of reconstructed against true magnitudes; below 1 they are too small"),
    "truth_absorption": TruthMeasure(
        "share of a parent feature's samples on which a child's unit fires and not its own", lower_is_better=True
    ),
}


def measures_of_truth(truth: Truth | None) -> dict[str, TruthMeasure]:
    """The measures that there are for a truth: absorption in a hierarchy alone, none without a truth."""
    if truth is None:
        return {}
    return {name: one for name, one in MEASURES.items() if name != "truth_absorption" or truth.parents is not None}


def likeness(rows: Float[np.ndarray, "units d_in"], directions: Float[np.ndarray, "features d_in"]) -> Likeness:
    """|cos| of every row with every direction, [units, features]; 0 for a row of norm 0."""
    unit_rows, unit_directions = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        for each in (rows, directions)
    )
    return np.abs(unit_rows @ unit_directions.T)


def matching(like: Likeness) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Units and features of the min(units, features) pairs of the largest sum of |cos|.

    Args:
        like: |cos| of units and features, [units, features].

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".
    """
    from scipy.optimize import linear_sum_assignment

    units, features = linear_sum_assignment(like, maximize=True)
    return units, features


def mcc(like: Likeness) -> float:
    """Mean correlation coefficient: mean |cos| of the matched pairs.

    Args:
        like: |cos| of units and features, [units, features].

    Source: Song et al. 2025, "Mechanistic interpretability should prioritize feature consistency in SAEs", arXiv
    2505.20254.
    """
    return float(np.mean(like[matching(like)]))


def mmcs(like: Likeness) -> float:
    """Mean over features of the largest |cos| to a unit.

    Args:
        like: |cos| of units and features, [units, features].

    Source: Sharkey et al. 2022, "Taking features out of superposition with sparse autoencoders" (mean max cosine
    similarity).
    """
    return float(np.mean(np.max(like, axis=0)))


def uniqueness(like: Likeness) -> float:
    """How many different features are the nearest one of a unit, over the number of units.

    Args:
        like: |cos| of units and features, [units, features].

    Returns:
        In (0, 1], and 1 where no two units have the same nearest feature.

    Source: Chanin et al. 2026, arXiv 2602.14687 (a metric of SynthSAEBench).
    """
    return len(np.unique(np.argmax(like, axis=1))) / len(like)


def f1(
    active: Bool[np.ndarray, "heldout units"], firing: Bool[np.ndarray, "heldout features"], like: Likeness
) -> float:
    """Mean over units of F1 = 2 TP / (2 TP + FP + FN), 0 where a unit and its nearest feature never fire.

    Args:
        active: which units fire on which sample.
        firing: which features do.
        like: |cos|, by which the feature of a unit is the nearest one.

    Source: Chanin et al. 2026, arXiv 2602.14687 (a metric of SynthSAEBench).
    """
    of_unit = firing[:, np.argmax(like, axis=1)]
    both = np.sum(active & of_unit, axis=0)
    either = np.sum(active, axis=0) + np.sum(of_unit, axis=0)
    return float(np.mean(2 * both / np.maximum(either, 1)))


def shrinkage(
    codes: Float[np.ndarray, "heldout units"],
    active: Bool[np.ndarray, "heldout units"],
    rows: Float[np.ndarray, "units d_in"],
    truth: Truth,
    pairs: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]],
) -> float:
    """Slope through 0 of what units reconstruct along their features' directions against the true magnitudes.

        sum f_iu (Wd_u . d_j) m_ij / sum m_ij^2,  over all pairs (u, j), and the samples i on which both fire

    NaN where no pair ever fires together.

    Args:
        codes: f.
        active: which units fire on which sample.
        rows: decoder rows Wd.
        truth: directions d and magnitudes m.
        pairs: units and features that are matched.

    Source: Wright and Sharkey 2024, "Addressing feature suppression in SAEs" (what it measures).
    """
    units, features = pairs
    along = np.sum(rows[units] * truth.directions[features], axis=1)
    coded = codes[:, units] * along
    true = np.where(active[:, units], truth.magnitudes[:, features], 0)
    whole = np.sum(np.square(true), dtype=float)
    return float(np.sum(coded * true, dtype=float) / whole) if whole > 0 else np.nan


def absorption(
    active: Bool[np.ndarray, "heldout units"],
    truth: Truth,
    pairs: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]],
) -> float:
    """Share of the samples of a parent on which its unit is silent and the unit of one of its children fires.

    Over all parents that are matched and have a child that is; NaN where there is none, or none ever fires.

    Args:
        active: which units fire on which sample.
        truth: of a hierarchy.
        pairs: units and features that are matched.

    Source: Chanin et al. 2024, "A is for absorption" (what it measures).
    """
    if truth.parents is None:
        return np.nan
    unit_of = dict(zip(pairs[1].tolist(), pairs[0].tolist(), strict=True))
    absorbed, fired = 0, 0
    for parent in np.unique(truth.parents[truth.parents >= 0]).tolist():
        children = [unit_of[child] for child in np.flatnonzero(truth.parents == parent).tolist() if child in unit_of]
        if parent in unit_of and children:
            fires = truth.firing[:, parent]
            fired += int(fires.sum())
            absorbed += int(np.sum(fires & ~active[:, unit_of[parent]] & active[:, children].any(axis=1)))
    return absorbed / fired if fired else np.nan


def against_truth(
    rows: Float[np.ndarray, "units d_in"],
    codes: Float[np.ndarray, "heldout units"],
    active: Bool[np.ndarray, "heldout units"],
    truth: Truth,
) -> dict[str, float]:
    """Every measure against the truth by name.

    Args:
        rows: of the decoder.
        codes: of the held-out samples.
        active: which units fire on which of them.
        truth: of these samples.
    """
    like = likeness(rows, truth.directions)
    pairs = matching(like)
    values = {
        "truth_mcc": float(np.mean(like[pairs])),
        "truth_mmcs": mmcs(like),
        "truth_uniqueness": uniqueness(like),
        "truth_f1": f1(active, truth.firing, like),
        "truth_shrinkage": shrinkage(codes, active, rows, truth, pairs),
        "truth_absorption": absorption(active, truth, pairs),
    }
    return {name: values[name] for name in measures_of_truth(truth)}


def lane_against_truth(params: Mapping[str, Any], x: Batch, settings: LaneSettings, truth: Truth) -> dict[str, float]:
    """Every measure of a finished lane against the truth, by name; NaN for one that is not finite.

    Args:
        params: of the lane.
        x: held-out samples, [heldout, d_in].
        settings: its settings, scalars.
        truth: of the samples.
    """
    rows = np.asarray(params[ROWS])
    size = max(1, PIECE // len(rows))
    parts = [
        jax.device_get(_codes(dict(params), x[start : start + size], settings)) for start in range(0, len(x), size)
    ]
    codes, active = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not (np.isfinite(rows).all() and np.isfinite(codes).all()):
        return dict.fromkeys(measures_of_truth(truth), np.nan)
    return against_truth(rows, codes, active, truth)


@jax.jit
def _codes(params: Params, x: Batch, settings: LaneSettings) -> tuple[Array, Array]:
    codes = encode(params, x, settings)
    return codes, settings.architecture.active(codes, settings.model)

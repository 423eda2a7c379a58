"""The applications by name, and their settings: what the command line's help shows."""

from __future__ import annotations

import dataclasses
from typing import Any

from sae_jax.data.corruption import CORRUPTIONS, check_levels
from sae_jax.settings import (
    AT_LEAST_ONE,
    CLOSED_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    UserError,
    check_all,
    one_of,
    setting,
)

# A task is an object with SCORE, `measure` and `draw`, or the name of a module of the folder tasks that has them and
# is imported when it is used: what they draw and score with takes seconds to import.
TASKS: dict[str, Any] = {
    "probe": "probe",
    "anomaly": "anomaly",
    "denoising": "denoising",
    "inpainting": "inpainting",
    "retrieval": "retrieval",
    "stacked": "stacking",
}

# The figures of a sweep, the formats of its table and of its figures, and how figures look.
FIGURES = (
    *("curves", "filters_best", "filters", "cosines", "consistency", "mean_activation", "heatmaps", "frontier"),
    "units",
)
TABLE_FORMATS, FIGURE_FORMATS = ("markdown", "csv", "latex"), ("png", "pdf", "svg")
STYLES = ("screen", "paper")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Settings of the applications.

    Raises:
        UserError: a value is out of range.
    """

    decay: float = setting(1e-4, NON_NEGATIVE, "probe, stacked: weight decay of the softmax layer")
    iterations: int = setting(200, AT_LEAST_ONE, "probe, stacked: L-BFGS iterations of the softmax layer")
    layers: tuple[int, ...] = setting((200,), AT_LEAST_ONE, "stacked: hidden units of each further layer", "unit")
    fine_tuning: int = setting(200, AT_LEAST_ONE, "stacked: L-BFGS iterations of all layers together")
    corruption: str = setting("gaussian", one_of(CORRUPTIONS[1:]), "denoising: kind of noise")
    noise: tuple[float, ...] = setting((0.05, 0.1, 0.2, 0.3, 0.4, 0.5), POSITIVE, "denoising: levels of the noise")
    hole: float = setting(0.4, Range(0, 1, True, True), "inpainting: side of the hole over the image's")
    rounds: int = setting(10, AT_LEAST_ONE, "inpainting: times that the hole is filled from the reconstruction")
    neighbours: int = setting(10, AT_LEAST_ONE, "retrieval: the k of precision at k")
    queries: int = setting(500, AT_LEAST_ONE, "retrieval: held-out samples to search for, at most")
    database: int = setting(5000, AT_LEAST_ONE, "retrieval: training samples to search among, at most")

    def __post_init__(self) -> None:
        check_all(self)
        check_levels(self.corruption, self.noise)
        _check_once("noise", "level", self.noise)


@dataclasses.dataclass(frozen=True)
class UnitsConfig:
    """What is kept of every unit.

    Raises:
        UserError: a value is out of range.
    """

    top: int = setting(16, AT_LEAST_ONE, "samples of a unit's largest activations", "sample")
    quantiles: tuple[float, ...] = setting(
        (0.25, 0.5, 0.75),
        CLOSED_UNIT,
        "quantiles of a unit's activations, where active, at which samples are kept",
    )
    each: int = setting(4, AT_LEAST_ONE, "samples at each quantile", "sample")
    nearest: int = setting(5, AT_LEAST_ONE, "other units whose decoder rows make the largest cosines", "unit")

    def __post_init__(self) -> None:
        check_all(self)
        _check_once("quantiles", "quantile", self.quantiles)


def _check_once(name: str, noun: str, values: tuple[float, ...]) -> None:
    if len(set(values)) < len(values):
        raise UserError(f"{name} must not name a {noun} twice: got {', '.join(map(str, values))}; leave one")

"""The variables that are kept of every unit, declared: names, dims, labels, and what stands where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.analysis.options import UnitsConfig
from sae_jax.sweeps.dataset import labels
from sae_jax.training.config import LaneSettings

PREFIX = "units_"
DENSITY, DEAD, DENSE = "units_density", "units_dead", "units_dense"
MEAN = "units_mean_active"
TOP, TOP_CODES, TOP_NAMES = "units_top_sample", "units_top_activation", "units_top_name"
AT_QUANTILES, CODES_AT_QUANTILES = "units_quantile_sample", "units_quantile_activation"
NEAREST, NEAREST_COSINES = "units_nearest", "units_nearest_cosine"
MATCH, MATCH_COSINES = "units_match", "units_match_cosine"
SHOWN_IN_TABLES = (DENSITY, DEAD, DENSE, NEAREST_COSINES, MATCH_COSINES)
# Units that fire on more samples are called dense, as by Sun et al. 2025 ("Dense SAE latents are features, not bugs").
DENSE_ABOVE = 0.1
OWN_DIMS = ("top_rank", "activation_quantile", "quantile_rank", "nearest_rank", "other_seed")
# What stands where there is nothing: a unit that a lane lacks, a sample beyond those on which a unit is active.
MISSING: dict[str, Any] = {"f": np.nan, "i": -1, "O": ""}


class UnitVariable(NamedTuple):
    """A variable of every unit: its dims beside unit, its dtype, label and units."""

    dims: tuple[str, ...]
    dtype: Any
    label: str
    units: str = "1"


def variables_of(rule: str) -> dict[str, UnitVariable]:
    """What is kept of every unit, by name.

    Args:
        rule: when a unit counts as active, in words.
    """
    active = f"active: {rule}"
    quantile = ("activation_quantile", "quantile_rank")
    none = "-1 where there is none"
    return {
        DENSITY: UnitVariable((), np.float32, f"share of held-out samples on which a unit is active; {active}"),
        MEAN: UnitVariable((), np.float32, f"mean code over the held-out samples on which a unit is active; {active}"),
        DEAD: UnitVariable((), np.float32, "1 for units active on no held-out sample, else 0"),
        DENSE: UnitVariable((), np.float32, f"1 for units active on more than {DENSE_ABOVE:g} of the samples, else 0"),
        TOP: UnitVariable(("top_rank",), np.int32, f"number of a held-out sample of the largest activations; {none}"),
        TOP_CODES: UnitVariable(("top_rank",), np.float32, "code of a unit on its top samples"),
        AT_QUANTILES: UnitVariable(quantile, np.int32, f"number of a held-out sample around a quantile; {none}"),
        CODES_AT_QUANTILES: UnitVariable(quantile, np.float32, "code of a unit on its samples around a quantile"),
        NEAREST: UnitVariable(("nearest_rank",), np.int32, f"unit whose decoder row is nearest by cosine; {none}"),
        NEAREST_COSINES: UnitVariable(("nearest_rank",), np.float32, "cosine with the decoder row of a nearest unit"),
        MATCH: UnitVariable(("other_seed",), np.int32, f"unit of another seed of the nearest decoder row; {none}"),
        MATCH_COSINES: UnitVariable(("other_seed",), np.float32, "cosine with the decoder row of that unit"),
        TOP_NAMES: UnitVariable(("top_rank",), np.dtype(object), "name of a unit's top sample; empty where none"),
    }


def rule_of(settings: LaneSettings) -> str:
    """When units of a lane count as active, in words."""
    return str(settings.architecture.active_rule(settings.model))


def labelled(variable: UnitVariable, dims: tuple[str, ...], values: Any) -> tuple[tuple[str, ...], Any, dict[str, str]]:
    kind = "name" if variable.dtype == object else "task"
    attributes = labels(variable.label, variable.units) | {"kind": kind}
    return (*dims, *variable.dims), np.asarray(values, variable.dtype), attributes


def empty(variable: UnitVariable, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, MISSING[np.dtype(variable.dtype).kind], variable.dtype)


def coordinates_of(options: UnitsConfig, units: int, seeds: Sequence[int]) -> dict[str, Any]:
    rank = {"top_rank": options.top, "quantile_rank": options.each, "nearest_rank": options.nearest}
    quantiles = np.asarray(options.quantiles)
    words = "quantile of a unit's activations on the samples on which it is active"
    return {
        "unit": ("unit", np.arange(units), labels("hidden unit", "1")),
        **{name: (name, np.arange(size), labels(name.replace("_", " "), "1")) for name, size in rank.items()},
        "activation_quantile": ("activation_quantile", quantiles, labels(words, "1")),
        **(
            {"other_seed": ("other_seed", np.asarray(seeds, int), labels("seed of another lane", "1"))} if seeds else {}
        ),
    }

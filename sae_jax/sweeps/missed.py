"""Lines about lanes that have another number of active units than they were asked for."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, settings_of
from sae_jax.sweeps.causes import explain_nothing
from sae_jax.sweeps.reading import present

L0, TARGET = "eval_l0", "target_l0"
# A lane has missed its target where its L0 on held-out data is further off than this share of it. Targets that are
# steered to are reached within .03 on features, .04 on patches: whoever is told of a miss can do something about it.
MISSED = 0.05
UNKNOWN = Model._field_defaults["missed"]


def missed_targets(dataset: xr.Dataset, asked: xr.DataArray | None) -> list[str]:
    """Lines about lanes whose held-out L0 is far from their target: one for each likely cause, with what to try.

    Left out are lanes that diverged or learned nothing, of which others speak, and those of a model without a target.

    Args:
        dataset: as `arranged`.
        asked: target_l0, along its dimension where it was swept; None where there is none.
    """
    if asked is None or L0 not in dataset:
        return []
    lanes = dataset[L0]
    reached, targets = lanes.values, asked.broadcast_like(lanes).transpose(*lanes.dims).values
    off = (targets > 0) & (np.abs(reached - targets) > MISSED * targets)
    if "diverged_at" in dataset:
        off &= dataset["diverged_at"].transpose(*lanes.dims).values < 0
    if "eval_explained_variance" in dataset:
        off &= ~explain_nothing(dataset).transpose(*lanes.dims).values
    if not off.any():
        return []
    names = _names(dataset, lanes)
    models = {name: _model(name) for name in np.unique(names).tolist()}
    present_lanes, causes = present(dataset), dict[tuple[str, str], list[tuple[float, str]]]()
    total = reached.size if present_lanes is None else int(present_lanes.sum())
    for name, target, l0 in zip(names[off].tolist(), targets[off].tolist(), reached[off].tolist(), strict=True):
        model = models[name]
        # Of a record that is not known by name, whether it goes by the target is known where it stands alone.
        if len(models) == 1 if model is None else TARGET in settings_of(model.Settings):
            shown = f"{round(l0, 2):g} of {target:g}" + (f" by {name}" if len(models) > 1 else "")
            missed = UNKNOWN if model is None else model.missed
            causes.setdefault(missed, []).append((abs(l0 / target - 1), shown))
    return [
        f"warning: {len(missed)} of {total} lanes ended with a held-out L0 more than {MISSED:.0%} off their "
        f"{TARGET}, {max(missed)[1]} at worst{why and f': {why}'}; try {what_to_try}"
        for (why, what_to_try), missed in causes.items()
    ]


def _names(dataset: xr.Dataset, lanes: xr.DataArray) -> np.ndarray:
    """The name of every lane's model, over the dimensions of a measure of the lanes."""
    if "model" in dataset.coords:
        names = dataset["model"].reset_coords(drop=True).broadcast_like(lanes)
        return np.asarray(names.transpose(*lanes.dims).values.astype(str))
    # Before models had names there was one.
    return np.full(lanes.shape, json.loads(dataset.attrs.get("config", "{}")).get("model", "classic"))


def _model(name: str) -> Model | None:
    try:
        return model_of(name)
    except UserError:
        return None

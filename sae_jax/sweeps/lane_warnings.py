"""Lines about lanes that went wrong, or that stopped early, from what a finished sweep has measured of them."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from sae_jax.sweeps.causes import uncentred, unlearned
from sae_jax.sweeps.missed import missed_targets
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.reading import arranged, present

MEAN_ACTIVATION = "eval_mean_activation"
# A unit is stuck at 0 when its mean activation is below this share of rho, and stuck at 1 by the mirror image of that.
STUCK = 0.1
# The settings that say something of what went wrong.
READ = {"rho", "beta", "output", "centre", "model", "target_l0"}


def warnings_of(dataset: xr.Dataset) -> list[str]:
    """Lines about lanes that went wrong: that diverged, learned nothing, missed their target, or with stuck units.

    What a Dataset does not measure, nothing is said about.
    """
    dataset = arranged(dataset)
    # Each operation of xarray copies every coordinate, and every setting is one.
    dataset = dataset.drop_vars([name for name in dataset.coords if name not in dataset.dims and name not in READ])
    present_lanes, lines = present(dataset), []
    total = dataset["loss"].isel(step=0).size if "loss" in dataset else 0
    total = total if present_lanes is None else int(present_lanes.sum())
    diverged = int((dataset["diverged_at"] >= 0).sum()) if "diverged_at" in dataset else 0
    if diverged:
        lines.append(
            f"warning: {diverged} of {total} lanes turned non-finite and were frozen with their last finite "
            "parameters; try a lower learning_rate, or clip_norm 1"
        )
    lines += unlearned(dataset)
    lines += missed_targets(dataset, setting_of(dataset, "target_l0"))
    stuck = _stuck_lanes(dataset)
    if stuck:
        lines.append(
            f"warning: in {stuck} of {total} lanes most units are stuck at 0 or at 1, where the penalty's slope no "
            "longer moves them; large steps outrun a long running mean: "
            "try a lower learning_rate or ema_decay, or a longer warmup and beta_warmup"
        )
    return lines


def stopped_early(dataset: xr.Dataset) -> list[str]:
    """A line about the lanes that stopped early; none where none did, or nothing is known of it."""
    if "stopped_at" not in dataset:
        return []
    steps = dataset["stopped_at"].values
    stopped = steps[steps >= 0]
    if not stopped.size:
        return []
    return [f"{stopped.size} of {count(steps.size, 'lane')} stopped early, median step {np.median(stopped):.0f}"]


def target(dataset: xr.Dataset) -> xr.DataArray | None:
    """rho: along its axis where it was swept, else the one value; None where no lane has such a target."""
    rho, beta = setting_of(dataset, "rho"), setting_of(dataset, "beta")
    return None if beta is not None and not bool((beta > 0).any()) else rho


def setting_of(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """A number among the settings: its coordinate, else the one value that config has; None without either."""
    if name in dataset.coords:
        return dataset[name].reset_coords(drop=True)
    value = json.loads(dataset.attrs.get("config", "{}")).get(name)
    return xr.DataArray(float(value)) if isinstance(value, (int, float)) else None


def _stuck_lanes(dataset: xr.Dataset) -> int:
    """The number of lanes most of whose units have a mean activation near 0, or near 1 where that bounds the codes."""
    rho = target(dataset)
    if rho is None or MEAN_ACTIVATION not in dataset or "eval_max_activation" not in dataset:
        return 0
    mean = dataset[MEAN_ACTIVATION]
    bounded = dataset["eval_max_activation"].max("unit") <= 1
    units = mean.notnull().sum("unit")
    low = (mean < STUCK * rho).sum("unit")
    high = ((1 - mean < STUCK * (1 - rho)) & bounded).sum("unit")
    stuck = low + high > units / 2
    if "eval_explained_variance" in dataset:
        explained = dataset["eval_explained_variance"]
        # The samples are to blame, and it has been said.
        stuck &= ~explained.copy(data=uncentred(dataset))
    return int(stuck.sum())

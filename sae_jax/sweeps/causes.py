"""Why lanes learned nothing, as far as their curves and measures show it."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr

from sae_jax.sweeps.dataset import GAMMA
from sae_jax.sweeps.reading import present

# A lane that explains less variance than this has learned next to nothing.
LEARNED = 0.05
# An error has changed, or risen, where it has by more than this share of what it was.
CHANGED, ROSE = 0.02, 0.1
# Samples whose mean is longer than this, in units of their spread, are not centred; an output that is bounded reaches
# them all the same. While the error falls, and they are no further than the last number, more steps reach them too.
UNCENTRED, UNBOUNDED, WITHIN_REACH = 1.0, "linear", 3.0
# A unit says the same of all samples where its largest activity is no further above its mean than this share of it, and
# meets the penalty where its mean is at most this many times rho.
SAME, MET = 0.5, 3.0
# The setting that weighs each term of the loss which can silence units.
WEIGHTS = {"loss_kl": "beta", "loss_weight_decay": "weight_decay", "loss_l1": "l1", "loss_contractive": "contractive"}


def unlearned(dataset: xr.Dataset) -> list[str]:
    """Lines about lanes that explain next to nothing: one for each likely cause, with what to try.

    Lanes that diverged are left out. What a Dataset does not measure, nothing is said about.
    """
    if "eval_explained_variance" not in dataset:
        return []
    explained = dataset["eval_explained_variance"]
    poor = explain_nothing(dataset).values
    present_lanes = present(dataset)
    total, lines, left = poor.size if present_lanes is None else int(present_lanes.sum()), list[str](), poor
    for cause, (applies, what_to_try) in _causes(dataset, poor, explained.dims).items():
        number = int((left & applies).sum())
        left = left & ~applies
        if number:
            lines.append(
                f"warning: {number} of {total} lanes explain less than {LEARNED:.0%} of the held-out "
                f"variance, next to nothing{cause}; try {what_to_try}"
            )
    return lines


def explain_nothing(dataset: xr.Dataset) -> xr.DataArray:
    """Which lanes explain next to nothing, of those that have not diverged, over that measure's dimensions."""
    # NaN where the lane's own measures are not finite: that is for others to say.
    poor = dataset["eval_explained_variance"] < LEARNED
    if "diverged_at" in dataset:
        poor = poor & (dataset["diverged_at"].transpose(*poor.dims) < 0)
    return poor


def _causes(dataset: xr.Dataset, poor: np.ndarray, dims: tuple[Hashable, ...]) -> dict[str, tuple[np.ndarray, str]]:
    """What may have kept poor lanes from learning, the likeliest first: where it applies [lanes], and what to try."""
    weights = [weight for term, weight in WEIGHTS.items() if term in dataset and (dataset[term] > 0).any()]
    gentler = ["a larger rho"] if "beta" in weights else []
    gentler += [f"a lower {weight}" for weight in weights]
    rose, falling, still = _shapes(dataset, dims)
    constant, gammas = _constant(dataset, dims), _gammas(dataset)
    far = poor & uncentred(dataset) & ~(falling & (gammas <= WITHIN_REACH))
    silent = np.zeros_like(rose)
    if "eval_dead_fraction" in dataset and weights:
        silent = dataset["eval_dead_fraction"].transpose(*dims).values > 0.5
    return {
        f", less than their mean does, from which they are far: ||mean|| is {gammas[far].max(initial=0):.2g} times "
        "||std||": (far, "normalize standardize"),
        ", and their error rose": (rose, "a lower learning_rate"),
        ", and most of their units are as active on every sample, which meets the penalty and says nothing": (
            constant,
            "a lower beta or a larger rho",
        ),
        ", and most of their units are active on no sample": (silent, _listed([*gentler, "more steps"])),
        ", and their error was still falling at the end": (falling, "more steps"),
        ", and their error hardly moved": (still, "a larger learning_rate, or more steps"),
        "": (np.ones_like(rose), _listed(["more steps", *gentler])),
    }


def uncentred(dataset: xr.Dataset) -> np.ndarray:
    """Where a lane has not even come to the mean of samples far from 0, over the explained variance's dimensions."""
    explained = dataset["eval_explained_variance"]
    if GAMMA not in dataset:
        return np.zeros(explained.shape, bool)
    far = dataset[GAMMA] > UNCENTRED
    if "output" in dataset.coords:
        far &= dataset["output"] == UNBOUNDED
    if "centre" in dataset.coords:  # Else the decoder's bias starts at their mean, or near it.
        far &= dataset["centre"] == "zero"
    return (far & (explained < -LEARNED)).broadcast_like(explained).transpose(*explained.dims).values


def _gammas(dataset: xr.Dataset) -> np.ndarray:
    """How far each lane's samples are from 0 in units of their spread, over the explained variance's dimensions."""
    explained = dataset["eval_explained_variance"]
    gammas = dataset[GAMMA] if GAMMA in dataset else xr.zeros_like(explained)
    return gammas.broadcast_like(explained).transpose(*explained.dims).values


def _constant(dataset: xr.Dataset, dims: tuple[Hashable, ...]) -> np.ndarray:
    """Where the KL penalty is on and most units are about as active on every sample, [lanes]."""
    lanes = dataset["eval_explained_variance"]
    if not {"rho", "beta", "eval_max_activation", "eval_mean_activation"} <= set(dataset.variables):
        return np.zeros(lanes.shape, bool)
    mean, largest = dataset["eval_mean_activation"], dataset["eval_max_activation"]
    same = ((largest - mean <= SAME * mean) & (mean <= MET * dataset["rho"])).where(mean.notnull())
    constant = (same.mean("unit") > 0.5) & (dataset["beta"] > 0)
    return constant.broadcast_like(lanes).transpose(*dims).values


def _shapes(dataset: xr.Dataset, dims: tuple[Hashable, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the error of reconstruction rose, still fell at the end, and hardly moved, each [lanes]."""
    curve = next((dataset[name] for name in ("loss_reconstruction", "loss") if name in dataset), None)
    if curve is None or "step" not in curve.dims:
        nowhere = np.zeros([dataset.sizes[dim] for dim in dims], bool)
        return nowhere, nowhere, nowhere
    curves = curve.transpose(*dims, "step").values
    points = np.isfinite(curves).sum(axis=-1, keepdims=True)  # What stopped early ends in NaN.
    # A twentieth of the points at each place: a single one is as noisy as its batches.
    wide, numbers = np.maximum(points // 20, 1), np.arange(curves.shape[-1])

    def around(start: np.ndarray) -> np.ndarray:
        chosen = (numbers >= start) & (numbers < start + wide)
        return np.sum(np.where(chosen, np.nan_to_num(curves), 0), axis=-1) / wide[..., 0]

    first, middle, last = around(np.zeros_like(points)), around(points // 2), around(np.maximum(points - wide, 0))
    # Steps that are too large do their harm at once, and one point alone is noisy.
    rose = last > curves[..., 0] * (1 + ROSE)
    return rose, last < middle * (1 - CHANGED), np.abs(last - first) < CHANGED * np.abs(first)


def _listed(what: list[str]) -> str:
    return " or ".join([", ".join(what[:-1]), what[-1]] if len(what) > 1 else what)

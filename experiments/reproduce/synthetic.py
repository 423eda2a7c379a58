"""What reproductions on samples of known features share: the training, and a figure of measures against L0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.reproduce.report import Options
from sae_jax import DataConfig, sweep

# On average 3.2 of 64 features in 32 dimensions fire on a sample.
DATA = "superposition"
TRAINING: dict[str, Any] = {"d_hidden": 64, "batch_size": 256, "learning_rate": 3e-3, "final_learning_rate": 0.1}
MEASURES = {
    "eval_explained_variance": "explained variance",
    "truth_absorption": "absorption",
    "truth_f1": "F1",
    "truth_mcc": "MCC",
    "truth_shrinkage": "slope of reconstructed magnitudes",
}
MODELS = {
    "batch_topk": "BatchTopK",
    "batch_topk:frozen=decoder": "BatchTopK, frozen rows",
    "batch_topk:frozen=encoder": "BatchTopK, frozen encoder",
    "batch_topk:frozen=soft": "BatchTopK, rows near their start",
    "gated": "Gated",
    "jumprelu": "JumpReLU",
    "matching_pursuit": "Matching pursuit",
    "matryoshka": "Matryoshka",
    "relu": "ReLU with L1",
    "topk": "TopK",
}


def trained(options: Options, models: Sequence[str], dataset: str = DATA, **settings: Any) -> xr.Dataset:
    """Five seeds of every model, 4,000 steps of 256 samples each; one seed and 2,500 steps where it is quick."""
    seeds, steps = (1, 2500) if options.quick else (5, 4000)
    return sweep(DataConfig(dataset=dataset), list(models), seeds=seeds, steps=steps, **{**TRAINING, **settings})


def mean_of(run: xr.Dataset, measure: str, **where: Any) -> float:
    """A measure, averaged over seeds and whatever else is left."""
    return float(run[measure].sel(where).mean())


def seeds_of(run: xr.Dataset, measure: str, **where: Any) -> np.ndarray:
    """A measure of one cell, a value for every seed."""
    return np.asarray(run[measure].sel(where).transpose("seed").values, float)


def against_l0(run: xr.Dataset, measures: Sequence[str]) -> Figure:
    """A panel for every measure against L0: a line for every model, bars of sample standard deviations."""
    figure, panels = plt.subplots(1, len(measures), figsize=(4.2 * len(measures), 3.6), layout="constrained")
    for panel, measure in zip(np.atleast_1d(panels), measures, strict=True):
        for model in run["model"].values:
            part = run.sel(model=model)
            bars = part[measure].std("seed", ddof=1) if part.sizes["seed"] > 1 else None
            l0, height = part["eval_l0"].mean("seed"), part[measure].mean("seed")
            panel.errorbar(l0, height, bars, marker="o", label=MODELS.get(str(model), str(model)))
        panel.set(xlabel="L0 on held-out samples", ylabel=MEASURES[measure])
        panel.grid(alpha=0.25)
    legend_below(figure)
    return figure


def legend_below(figure: Figure) -> None:
    """One legend for all panels, under them, where it covers nothing."""
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)

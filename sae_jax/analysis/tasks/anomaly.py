"""Anomaly detection: samples of classes that were never trained on have the larger reconstruction error.

Source: Hawkins et al. 2002, "Outlier detection using replicator neural networks".
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.tasks.base import ShownLane, TaskResult, TaskVariable, below, dots, reconstruct
from sae_jax.settings import UserError

SCORE = "anomaly_auroc"


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """AUROC and average precision of the reconstruction error as a sign of a left-out class, for every lane."""
    if lanes.data.left_out is None or not len(lanes.data.left_out):
        raise UserError(
            "task anomaly needs a run that left a class out of its training: got classes "
            f"{lanes.data.config.classes!r}; train with --classes 0-8, say"
        )
    samples = np.concatenate([lanes.data.heldout, lanes.data.left_out])
    anomalous = np.arange(len(samples)) >= len(lanes.data.heldout)

    def errors(lane: Lane, x: Array) -> Array:
        return jnp.sum(jnp.square(reconstruct(lane, x) - x), axis=1)

    scores = lanes.map(errors, samples)

    def metric_of_lanes(metric: Callable[..., float]) -> np.ndarray:
        return np.array([metric(anomalous, lane) if np.all(np.isfinite(lane)) else np.nan for lane in scores])

    return TaskResult(
        {
            SCORE: TaskVariable(
                metric_of_lanes(roc_auc_score),
                "area under the ROC curve of the reconstruction error, left-out classes against held-out samples",
            ),
            "anomaly_average_precision": TaskVariable(
                metric_of_lanes(average_precision_score),
                "average precision of the same",
            ),
        },
        figure_arrays={"scores": scores},
    )


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """AUROC of every cell; the best lane's ROC curve and its reconstruction errors."""
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    dots(panels[0], dataset[SCORE])
    panels[0].set_xlabel("area under the ROC curve")
    scores, normal = shown.figure_arrays["scores"], len(shown.lanes.data.heldout)
    anomalous = np.arange(len(scores)) >= normal
    false_alarms, hits, _ = roc_curve(anomalous, scores)
    panels[1].plot(false_alarms, hits)
    panels[1].plot([0, 1], [0, 1], color="black", lw=0.8, ls="--")
    panels[1].set(xlabel="false positive rate", ylabel="true positive rate", title=f"best lane: {shown.name}")
    panels[1].set_aspect("equal")
    edges = np.histogram_bin_edges(scores, 25)
    for which, label in ((~anomalous, "trained classes, held out"), (anomalous, "left-out classes")):
        panels[2].hist(scores[which], edges, density=True, alpha=0.6, label=label)
    panels[2].set(xlabel="reconstruction error", ylabel="density", title="errors of the best lane")
    below(panels[2])
    return figure

"""Linear probe: how well a softmax layer on the codes tells classes apart, beside one on the samples themselves.

Source: Ng, UFLDL, "Self-taught learning" (the codes' accuracy beside the raw pixels').
"""

from __future__ import annotations

import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.probes import accuracy, fit_probe, probe_logits
from sae_jax.analysis.tasks.base import ShownLane, TaskResult, TaskVariable, dots, labels_of
from sae_jax.training.evaluation import encode

SCORE = "probe_accuracy"


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """Held-out accuracy of every lane's probe, trained on the training samples' codes."""
    labels, heldout_labels, classes = labels_of(lanes.data, "probe")

    def classify(train: Array, heldout: Array, labels: Array, expected: Array) -> tuple[Array, Array]:
        logits = probe_logits(fit_probe(train, labels, len(classes), options.decay, options.iterations), heldout)
        return accuracy(logits, expected), jnp.argmax(logits, axis=1)

    def on_codes(lane: Lane, train: Array, heldout: Array, *labels: Array) -> tuple[Array, Array]:
        train, heldout = (encode(lane.params, x, lane.settings) for x in (train, heldout))
        return classify(train, heldout, *labels)

    samples = (lanes.data.train, lanes.data.heldout, labels, heldout_labels)
    scores, predicted = lanes.map(on_codes, *samples)
    raw, _ = lanes.baseline("probe", classify, *samples)
    return TaskResult(
        {
            SCORE: TaskVariable(scores, "share of held-out samples whose class a softmax layer on the codes names"),
            "probe_accuracy_raw": TaskVariable(
                raw, "the same of a softmax layer on the samples themselves", per_lane=False
            ),
        },
        figure_arrays={"predicted": predicted},
    )


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """Accuracy of every cell, and the confusion matrix of the best lane."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    raw = float(dataset["probe_accuracy_raw"].mean())
    dots(panels[0], dataset[SCORE], raw, f"the samples themselves: {raw:.3f}")
    panels[0].set_xlabel("held-out accuracy")
    _, expected, classes = labels_of(shown.lanes.data, "probe")
    ConfusionMatrixDisplay.from_predictions(
        expected,
        shown.figure_arrays["predicted"],
        labels=range(len(classes)),
        display_labels=classes,
        ax=panels[1],
        cmap="Blues",
        colorbar=False,
        text_kw={"fontsize": 7},
    )
    panels[1].set_title(f"best lane: {shown.name}")
    panels[1].grid(False)
    return figure

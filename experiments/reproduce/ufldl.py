"""What UFLDL's exercises on digits share: the sparse autoencoder of their settings, and a softmax layer's accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from sae_jax import Data, encode, lane_settings, sweep
from sae_jax.analysis.probes import accuracy, fit_probe, probe_logits

RHO, BETA, WEIGHT_DECAY = 0.1, 3.0, 3e-3
# The loss of all exercises, half the squared error over all samples, and how it is minimised.
FULL_BATCH: dict[str, Any] = {
    "reconstruction_loss": "half_squared_error",
    "estimator": "batch",
    "optimizer": "lbfgs",
}


def digit_settings(d_hidden: int, steps: int) -> dict[str, Any]:
    """Settings of the exercises on digits, by name."""
    coefficients = {"rho": RHO, "beta": BETA, "weight_decay": WEIGHT_DECAY}
    return {"d_hidden": d_hidden, "steps": steps, **FULL_BATCH, **coefficients}


def train(data: Data, d_hidden: int, steps: int) -> tuple[xr.Dataset, Callable[[np.ndarray], Array]]:
    """Train one autoencoder with the exercises' settings, and return the lane and its encoder."""
    settings = digit_settings(d_hidden, steps)
    trained = sweep(data, **settings).squeeze()
    params = {name: jnp.asarray(trained[name].values) for name in ("encoder_weight", "encoder_bias")}
    return trained, lambda x: encode(params, x, lane_settings(**settings))


def on_test(x: Array | np.ndarray, heldout: Array | np.ndarray, data: Data) -> float:
    """Accuracy on the held-out samples of a softmax layer trained on the training samples.

    Args:
        x, heldout: codes of the training and of the held-out samples, or the samples themselves.
        data: whose labels are read.
    """
    assert data.train_labels is not None and data.heldout_labels is not None
    classes = int(data.train_labels.max()) + 1
    probe = jax.jit(lambda x, y: fit_probe(x, y, classes))(jnp.asarray(x), data.train_labels)
    return float(accuracy(probe_logits(probe, jnp.asarray(heldout)), data.heldout_labels))


def cross_validated(x: Array | np.ndarray, data: Data, folds: int) -> float:
    """Accuracy of softmax layers trained on all folds of the training samples but one and tested on that one, averaged.

    Args:
        x: codes of the training samples, or the samples themselves, [samples, features].
        data: whose training labels are read.
        folds: number of equal parts.
    """
    assert data.train_labels is not None
    rows, labels, classes = np.asarray(x), data.train_labels, int(data.train_labels.max()) + 1
    fit = jax.jit(lambda x, y: fit_probe(x, y, classes))
    size, scores = len(rows) // folds, []
    for fold in range(folds):
        order = np.roll(np.arange(size * folds), fold * size)
        train, test = order[size:], order[:size]
        logits = probe_logits(fit(rows[train], labels[train]), jnp.asarray(rows[test]))
        scores.append(float(accuracy(logits, labels[test])))
    return float(np.mean(scores))

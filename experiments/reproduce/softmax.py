"""What several reproductions on digits share: a softmax layer trained on some samples and tested on the rest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sae_jax import Data
from sae_jax.probes import accuracy, fit_probe, probe_logits


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

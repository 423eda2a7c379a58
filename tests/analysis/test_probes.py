"""Softmax regression against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sae_jax.analysis.probes import accuracy, fit_probe, probe_logits, probe_loss

DIGITS = load_digits()
X, LABELS = (DIGITS.data / 16).astype(np.float32), DIGITS.target.astype(np.int32)
DECAY = 1e-3


def test_the_fit_is_scikit_learns():
    ours = jax.jit(lambda: fit_probe(X, LABELS, 10, DECAY, 500))()
    theirs = LogisticRegression(C=1 / (DECAY * len(X)), max_iter=2000, tol=1e-8).fit(X, LABELS)
    other = {"weight": theirs.coef_.T.astype(np.float32), "bias": theirs.intercept_.astype(np.float32)}
    assert float(probe_loss(ours, X, LABELS, DECAY)) == pytest.approx(
        float(probe_loss(other, X, LABELS, DECAY)), rel=1e-5
    )
    assert float(accuracy(probe_logits(ours, X), LABELS)) == pytest.approx(theirs.score(X, LABELS), abs=2e-3)


def test_the_loss_of_a_zero_probe_is_the_log_of_the_number_of_classes():
    probe = {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}
    assert float(probe_loss(probe, X, LABELS, 5.0)) == pytest.approx(np.log(10))
    assert float(accuracy(probe_logits(probe, X), LABELS)) == pytest.approx(np.mean(LABELS == 0))

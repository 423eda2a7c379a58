"""What several reproductions share: errors on MNIST of classifiers whose settings are chosen on validation digits."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.reproduce.minibatches import minimize
from sae_jax import Data, UserError
from sae_jax.analysis.probes import accuracy, probe_logits, probe_loss
from sae_jax.models.base import Params

SHARE = 6
BATCH, RATE = 500, 1e-2


class Split(NamedTuple):
    """Places of the training digits that classifiers are fitted on while settings are chosen, and of the others."""

    fitted: slice
    validation: slice


def split_off(data: Data) -> Split:
    """The last sixth of the training digits for validation, 10,000 of MNIST's."""
    held = len(data.train) // SHARE
    return Split(slice(len(data.train) - held), slice(len(data.train) - held, None))


def labels_of(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Training and test labels.

    Raises:
        UserError: the samples carry none.
    """
    if data.train_labels is None or data.heldout_labels is None:
        raise UserError("a classifier needs labelled digits: got none; use tfds:mnist")
    return data.train_labels, data.heldout_labels


def softmax_errors(
    codes: Array, labels: np.ndarray, others: Array, their_labels: np.ndarray, decays: list[float], epochs: int
) -> list[float]:
    """Errors in percent of softmax layers of several weight decays, all fitted at once by Adam.

    Args:
        codes, labels: what they are fitted on, [digits, features] and [digits].
        others, their_labels: what they are tried on.
        decays: of which there is one layer each.
        epochs: of the fitting, in batches of BATCH.
    """
    classes = int(labels.max()) + 1
    start = {
        "weight": jnp.zeros((len(decays), codes.shape[1], classes), jnp.float32),
        "bias": jnp.zeros((len(decays), classes), jnp.float32),
    }

    def loss(layers: Params, x: Array, y: Array) -> Array:
        # Adam takes every parameter by itself, and none is in two terms of the sum.
        return jnp.sum(jax.vmap(lambda layer, decay: probe_loss(layer, x, y, decay))(layers, jnp.asarray(decays)))

    batch = min(BATCH, len(codes))
    fitted = minimize(loss, start, (codes, jnp.asarray(labels)), epochs * len(codes) // batch, batch, RATE)
    scores = jax.vmap(lambda layer: accuracy(probe_logits(layer, others), their_labels))(fitted)
    return [100 * (1 - float(score)) for score in scores]

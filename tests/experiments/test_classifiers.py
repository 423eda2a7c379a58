"""What the reproductions with classifiers share: the split of the digits, softmax layers, Adam on minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.reproduce.minibatches import minimize
from experiments.reproduce.validation import labels_of, softmax_errors, split_off
from sae_jax import DataConfig, UserError, as_data, load

DECAYS = [1e-3, 1e3]


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(dataset="digits"))


def test_the_split_holds_out_the_last_sixth_of_the_training_digits(digits):
    split, places = split_off(digits), np.arange(len(digits.train))
    assert len(places[split.validation]) == len(places) // 6
    np.testing.assert_array_equal(np.concatenate([places[split.fitted], places[split.validation]]), places)


def test_softmax_layers_err_as_scikit_learns_do(digits):
    labels, test_labels = labels_of(digits)
    x, others = jnp.asarray(digits.train), jnp.asarray(digits.heldout)
    fitted, empty = softmax_errors(x, labels, others, test_labels, DECAYS, 200)
    # Its C weighs the sum of the cross-entropies.
    theirs = LogisticRegression(C=1 / (DECAYS[0] * len(labels)), max_iter=2000).fit(digits.train, labels)
    assert fitted == pytest.approx(100 * (1 - theirs.score(digits.heldout, test_labels)), abs=1.2)
    assert empty > 50
    [alone] = softmax_errors(x, labels, others, test_labels, DECAYS[:1], 200)
    assert alone == fitted


def test_samples_without_labels_are_refused(samples):
    with pytest.raises(UserError, match="a classifier needs labelled digits"):
        labels_of(as_data(samples))


def test_minibatches_find_the_least_squares_solution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.normal(size=200)).astype(np.float32)
    found = minimize(
        lambda w, x, y: jnp.mean(jnp.square(jnp.sum(x * w["w"][None], axis=1) - y)),
        {"w": jnp.zeros(3)},
        (jnp.asarray(x), jnp.asarray(y)),
        steps=2000,
        batch_size=20,
        rate=0.05,
    )
    np.testing.assert_allclose(found["w"], np.linalg.lstsq(x, y, rcond=None)[0], atol=0.01)
    assert jax.tree.structure(found) == jax.tree.structure({"w": 0})

"""Measures on held-out data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.classic import init
from sae_jax.training.config import lane_settings
from sae_jax.training.evaluation import evaluate, explained_variance
from tests import references

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(50, 4)).astype(np.float32)


def test_explained_variance_of_the_mean_is_zero_and_of_the_data_is_one():
    mean = jnp.broadcast_to(jnp.asarray(X).mean(axis=0), X.shape)
    assert float(explained_variance(X, mean)) == pytest.approx(0, abs=1e-6)
    assert float(explained_variance(X, X)) == 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_of_equal_samples_there_is_no_variance_to_explain(value):
    equal = np.full((999, 3), value, np.float32)
    assert np.isnan(float(explained_variance(equal, equal + 1)))


def test_explained_variance_against_the_reference():
    guess = X + RNG.normal(0, 0.1, size=X.shape).astype(np.float32)
    assert float(explained_variance(X, guess)) == pytest.approx(references.explained_variance(X, guess), rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "preactivations", "l0", "dead", "firing"),
    [
        # Active above 0.1: sigmoid(-2.3) = .091 is not, sigmoid(-2.1) = .109 is.
        ("sigmoid", [[-2.3, -2.1, 0.0], [-2.3, -9.0, -9.0]], 1.0, 1 / 3, [0, 0.5, 0.5]),
        # On the scale (h + 1) / 2: tanh(-1.15) gives .091, tanh(-1.05) .109.
        ("tanh", [[-1.15, -1.05, 0.0], [-1.15, -9.0, -9.0]], 1.0, 1 / 3, [0, 0.5, 0.5]),
        ("relu", [[-1.0, 0.1, 2.0], [0.0, 1.0, -1.0]], 1.5, 1 / 3, [0, 1, 0.5]),
        ("linear", [[-1.0, 0.1, 0.0], [0.0, 1.0, 0.0]], 1.5, 1 / 3, [0.5, 1, 0]),
    ],
)
def test_active_and_dead_units_are_counted_by_the_stated_rule(activation, preactivations, l0, dead, firing):
    settings = lane_settings(d_hidden=3, activation=activation, output="linear")
    params = init(jax.random.key(0), 2, settings.model)
    # Two samples that are the unit vectors put their pre-activations into the columns of the encoder weight.
    params["encoder_weight"] = jnp.asarray(preactivations).T
    found = evaluate(params, np.eye(2, dtype=np.float32), settings)
    assert float(found["l0"]) == pytest.approx(l0) and float(found["dead_fraction"]) == pytest.approx(dead)
    np.testing.assert_allclose(found["firing_rate"], firing)


def test_mean_and_maximum_activity_and_the_training_losss_own_term():
    settings = lane_settings(d_hidden=3, activation="tanh")
    params = init(jax.random.key(0), 4, settings.model)
    found = evaluate(params, X, settings)
    activity = (np.tanh(X @ np.asarray(params["encoder_weight"]).T) + 1) / 2
    np.testing.assert_allclose(found["mean_activation"], activity.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["max_activation"], activity.max(axis=0), rtol=1e-5)
    output = references.sigmoid((2 * activity - 1) @ np.asarray(params["decoder_weight"]))
    assert float(found["reconstruction"]) == pytest.approx(((output - X) ** 2).sum(axis=1).mean(), rel=1e-5)
    assert float(found["explained_variance"]) == pytest.approx(references.explained_variance(X, output), rel=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "linear"])
def test_units_that_k_leaves_out_are_not_active(activation):
    settings = lane_settings(d_hidden=5, activation=activation, k=2)
    params = init(jax.random.key(0), 4, settings.model)
    params["encoder_bias"] = jnp.full(5, 2.0)
    assert float(evaluate(params, X, settings)["l0"]) == 2

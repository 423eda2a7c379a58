"""Schedules and optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax.models.types import Hyperparameters
from sae_jax.settings import UserError
from sae_jax.training.config import Config
from sae_jax.training.optimizers import learning_rate, make_optimizer, units_kept, warmup
from tests import references

PARAMS = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([[3.0]])}
GRADIENTS = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[4.0]])}


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_learning_rate_against_the_reference(final):
    hyper = Hyperparameters(learning_rate=0.02, warmup=0.1, final_learning_rate=final)
    for step in (0, 4, 9, 10, 50, 99):
        expected = references.learning_rate(step, peak=0.02, warmup_steps=10, steps=100, final=final)
        assert float(learning_rate(step, Config(steps=100), hyper)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_no_warmup_and_a_warmup_as_long_as_the_run():
    assert float(warmup(0, Config(steps=10), 0.0)) == 1
    rates = [float(learning_rate(t, Config(steps=10), Hyperparameters(warmup=1.0))) for t in range(10)]
    np.testing.assert_allclose(rates, 5e-3 * np.arange(1, 11) / 10, rtol=1e-5)


def test_k_falls_linearly_and_stays():
    config, hyper = Config(d_hidden=100, steps=40), Hyperparameters(k=10, k_warmup=0.5)
    kept = [int(units_kept(t, config, hyper)) for t in range(40)]
    np.testing.assert_array_equal(kept[:20], np.round(100 - 4.5 * np.arange(1, 21)))
    assert set(kept[19:]) == {10}
    assert int(units_kept(30, config, Hyperparameters(k=0))) == 100


def test_adam_is_optaxs():
    hyper = Hyperparameters()
    ours, theirs = make_optimizer(Config(), hyper, 0.1), optax.adam(0.1)
    states = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(3):
        mine, first = ours.update(GRADIENTS, states[0])
        other, second = theirs.update(GRADIENTS, states[1])
        states = first, second
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, other)


def test_sgd_with_momentum_by_hand():
    optimizer = make_optimizer(Config(optimizer="sgd"), Hyperparameters(momentum=0.5), 0.1)
    state = optimizer.init(PARAMS)
    for velocity in (3.0, 4.5, 5.25):
        updates, state = optimizer.update(GRADIENTS, state)
        np.testing.assert_allclose(updates["a"], [-0.1 * velocity, 0], rtol=1e-6)


def test_clipping_scales_to_the_global_norm():
    optimizer = make_optimizer(Config(optimizer="sgd"), Hyperparameters(clip_norm=1.0, momentum=0.0), 1.0)
    updates, _ = optimizer.update(GRADIENTS, optimizer.init(PARAMS))
    np.testing.assert_allclose(updates["a"], [-0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [[-0.8]], rtol=1e-6)


def test_lbfgs_reaches_the_minimum_of_a_quadratic_within_as_many_steps_as_dimensions():
    scales = jnp.asarray([1.0, 5.0, 30.0])

    def value(w):
        return 0.5 * jnp.sum(scales * jnp.square(w - 1))

    optimizer = make_optimizer(Config(optimizer="lbfgs", estimator="batch"), Hyperparameters(), 0.0)
    w = jnp.asarray([4.0, -3.0, 2.0])
    state = optimizer.init(w)
    for _ in range(12):
        loss, gradient = jax.value_and_grad(value)(w)
        updates, state = optimizer.update(gradient, state, w, value=loss, grad=gradient, value_fn=value)
        w = w + updates
    np.testing.assert_allclose(w, 1, atol=1e-3)


@pytest.mark.parametrize(
    "settings", [{}, {"estimator": "batch", "corruption": "gaussian"}, {"estimator": "batch", "products": "bfloat16"}]
)
def test_lbfgs_refuses_a_loss_that_does_not_stand_still(settings):
    with pytest.raises(UserError, match="optimizer lbfgs needs the exact gradient of one fixed loss"):
        Config(optimizer="lbfgs", **settings)

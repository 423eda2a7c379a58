"""Schedules and optimizers of minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax.models.base import ramp
from sae_jax.training.config import TrainingSettings
from sae_jax.training.optimizers import OPTIMIZERS, learning_rate
from tests import references

PARAMS = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([[3.0]])}
GRADIENTS = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[4.0]])}


def loss(params):
    """A loss whose gradient is GRADIENTS everywhere, and something computed on the way."""
    return optax.tree.vdot(GRADIENTS, params), "rest"


def proposals(name, rate, steps=3, prepared=lambda gradients: gradients, **values):
    """What an optimizer proposes, one step after another."""
    optimizer, training = OPTIMIZERS[name], TrainingSettings(**values)
    state = optimizer.init(PARAMS, training, lambda: None)
    for _ in range(steps):
        proposal = optimizer.propose(loss, PARAMS, state, training, rate, prepared)
        updates, state = proposal.update()
        yield proposal, updates


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_learning_rate_against_the_reference(final):
    training = TrainingSettings(learning_rate=0.02, warmup=0.1, final_learning_rate=final, steps=100)
    for step in (0, 4, 9, 10, 50, 99):
        expected = references.learning_rate(step, peak=0.02, warmup_steps=10, steps=100, final=final)
        assert float(learning_rate(step, training)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_no_warmup_and_a_warmup_as_long_as_the_run():
    assert float(ramp(0, 10, 0.0)) == 1
    rates = [float(learning_rate(t, TrainingSettings(learning_rate=5e-3, warmup=1.0, steps=10))) for t in range(10)]
    np.testing.assert_allclose(rates, 5e-3 * np.arange(1, 11) / 10, rtol=1e-5)


def test_adam_is_optaxs():
    theirs = optax.adam(0.1)
    state = theirs.init(PARAMS)
    for _, mine in proposals("adam", 0.1):
        other, state = theirs.update(GRADIENTS, state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, other)


def test_sgd_with_momentum_by_hand():
    for velocity, (_, updates) in zip((3.0, 4.5, 5.25), proposals("sgd", 0.1, momentum=0.5), strict=True):
        np.testing.assert_allclose(updates["a"], [-0.1 * velocity, 0], rtol=1e-6)


def test_clipping_scales_to_the_global_norm():
    [(_, updates)] = proposals("sgd", 1.0, steps=1, clip_norm=1.0, momentum=0.0)
    np.testing.assert_allclose(updates["a"], [-0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [[-0.8]], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, optimizer in OPTIMIZERS.items() if not optimizer.full_batch])
def test_what_prepares_the_gradient_comes_before_the_optimizer(name):
    def prepared(gradients):
        return gradients | {"a": jnp.zeros(2)}

    [(proposal, updates)] = proposals(name, 0.1, steps=1, prepared=prepared)
    assert proposal.rest == "rest" and float(proposal.loss) == 3 * 1 + 4 * 3
    np.testing.assert_array_equal(proposal.gradients["a"], 0)
    np.testing.assert_array_equal(updates["a"], 0)
    assert np.all(np.asarray(updates["b"]) < 0)

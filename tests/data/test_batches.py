"""Minibatches drawn from permutations that are never written down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.data.batches import batch_indices, host_indices, permute
from sae_jax.settings import UserError


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 64, 65, 1000, 9001])
def test_every_sample_has_exactly_one_place(samples):
    order = np.asarray(permute(jax.random.key(3), jnp.arange(samples, dtype=jnp.uint32), samples))
    assert sorted(order) == list(range(samples))


def test_an_epoch_shows_every_sample_once_and_the_next_one_in_another_order():
    epochs = [
        np.concatenate([batch_indices(jax.random.key(0), 10 * epoch + i, 100, 10) for i in range(10)])
        for epoch in (0, 1)
    ]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert np.mean(epochs[0] == epochs[1]) < 0.1


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(UserError, match="batch_size must be at most the number of training samples: got 20 of 10"):
        batch_indices(jax.random.key(0), 0, 10, 20)


def test_the_remainder_of_an_epoch_is_left_out_by_chance_not_by_place():
    draw = jax.jit(jax.vmap(lambda step: batch_indices(jax.random.key(0), step, 25, 10)))
    counts = np.bincount(np.asarray(draw(jnp.arange(4000))).ravel(), minlength=25)
    # 40,000 draws over 25 samples: 1600 each, and a standard deviation below that of independent draws, 39.
    assert np.abs(counts - 1600).max() < 4 * 39


def test_all_orders_of_a_small_set_are_equally_likely():
    keys = jax.random.split(jax.random.key(0), 24_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: permute(key, jnp.arange(4, dtype=jnp.uint32), 4)))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    # Chi-squared with 23 degrees of freedom exceeds 49.7 once in a thousand.
    assert np.sum((counts - 1000) ** 2 / 1000) < 49.7


def test_neighbours_are_not_neighbours_after_it():
    order = np.asarray(permute(jax.random.key(1), jnp.arange(10_000, dtype=jnp.uint32), 10_000)).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.04


@pytest.mark.parametrize(("samples", "batch_size"), [(100, 10), (25, 10), (9001, 450), (3, 1)])
def test_epochs_on_the_host_are_orders_of_their_own(samples, batch_size):
    steps = samples // batch_size
    epochs = [
        np.concatenate([host_indices(7, epoch * steps + i, samples, batch_size) for i in range(steps)])
        for epoch in (0, 1)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == steps * batch_size and set(epoch) <= set(range(samples))
    if samples > 3:
        assert np.mean(epochs[0] == epochs[1]) < 0.1
        assert np.any(host_indices(8, 0, samples, batch_size) != host_indices(7, 0, samples, batch_size))


def test_an_order_on_the_host_is_the_network_that_devices_walk(monkeypatch):
    # With the same keys of the rounds both are the same permutation.
    keys = np.asarray(jax.random.bits(jax.random.key(5), (6,), jnp.uint32))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: type("", (), {"integers": lambda *a, **b: keys})())
    expected = permute(jax.random.key(5), jnp.arange(9001, dtype=jnp.uint32), 9001)
    np.testing.assert_array_equal(host_indices(0, 0, 9001, 9001), expected)

"""The largest pre-activations of every sample and of every unit, and the codes that they leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.base import Across
from sae_jax.models.selection import dropped, largest, largest_of_units

RNG = np.random.default_rng(0)
SPECIAL = np.array([[0.0, -1e-38, 3e38, -3e38, 1e-40, -2.5, np.inf, -np.inf]], np.float32)


@pytest.mark.parametrize("values", [RNG.normal(size=(20, 33)).astype(np.float32), SPECIAL])
def test_the_k_largest_are_those_of_a_sort(values):
    every = range(1, values.shape[1] + 1)
    kept = jax.vmap(largest, in_axes=(None, 0))(values, jnp.asarray(every))
    for k, mask in zip(every, kept, strict=True):
        threshold = np.sort(values, axis=1)[:, -k]
        np.testing.assert_array_equal(mask, values >= threshold[:, None])
        assert np.all(np.sum(mask, axis=1) == k)


def test_equal_values_are_kept_together_and_a_large_k_keeps_all():
    values = jnp.asarray([[1.0, 2.0, 2.0, 0.0]])
    np.testing.assert_array_equal(largest(values, 1), [[False, True, True, False]])
    assert np.all(largest(values, 9))


@pytest.mark.parametrize("count", [1, 3, 20, 50])
def test_the_largest_of_units_are_those_of_a_sort_of_the_whole_batch(count):
    values = RNG.normal(size=(7, 20)).astype(np.float32)
    expected = values >= np.sort(values, axis=1)[:, -min(count, 20)][:, None]
    np.testing.assert_array_equal(largest_of_units(jnp.asarray(values), count, Across()), expected)
    # The same batch over four devices, [device, unit, sample].
    parts = values.reshape(7, 4, 5).swapaxes(0, 1)
    kept = jax.vmap(lambda part: largest_of_units(part, count, Across("batch")), axis_name="batch")(parts)
    np.testing.assert_array_equal(kept.swapaxes(0, 1).reshape(7, 20), expected)


def test_dropped_codes_are_those_that_are_exactly_zero():
    codes = jnp.asarray([[0.0, -0.0, 1e-30, -3.0]])
    np.testing.assert_array_equal(dropped(codes), [[True, True, False, False]])

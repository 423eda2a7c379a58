"""Noise on the inputs."""

import jax
import numpy as np
import pytest

from sae_jax.data.corruption import CORRUPTIONS, corrupt

X = np.full((400, 50), 0.7, np.float32)


def test_gaussian_noise_has_the_stated_deviation():
    noise = np.asarray(corrupt(jax.random.key(0), X, "gaussian", 0.3)) - X
    assert noise.mean() == pytest.approx(0, abs=0.01) and noise.std() == pytest.approx(0.3, rel=0.02)


def test_masking_sets_the_stated_share_to_zero():
    found = np.asarray(corrupt(jax.random.key(0), X, "masking", 0.3))
    assert set(np.unique(found)) == {np.float32(0), np.float32(0.7)}
    assert np.mean(found == 0) == pytest.approx(0.3, abs=0.01)


def test_salt_and_pepper_come_in_equal_shares():
    found = np.asarray(corrupt(jax.random.key(0), X, "salt_and_pepper", 0.3))
    assert np.mean(found == 0) == pytest.approx(0.15, abs=0.01)
    assert np.mean(found == 1) == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_level_zero_changes_nothing(kind):
    np.testing.assert_array_equal(corrupt(jax.random.key(0), X, kind, 0.0), X)


def test_a_higher_level_corrupts_what_a_lower_one_does_and_more():
    low, high = (np.asarray(corrupt(jax.random.key(0), X, "masking", level)) == 0 for level in (0.2, 0.5))
    assert np.all(high[low]) and high.sum() > low.sum()


def test_every_key_draws_its_own_noise():
    first, second = (np.asarray(corrupt(jax.random.key(i), X, "masking", 0.5)) for i in (0, 1))
    assert np.mean(first == second) == pytest.approx(0.5, abs=0.02)

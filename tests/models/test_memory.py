"""The running mean activation."""

import numpy as np
import pytest

from sae_jax.models import memory

MEANS = np.random.default_rng(0).uniform(size=(30, 4)).astype(np.float32)


def estimates(at, rho, decay):
    """rho_hat before the first batch and after each."""
    state = memory.start(rho, 4, at)
    seen = [np.asarray(memory.estimate(state, rho))]
    for mean in MEANS:
        state = memory.update(state, mean, decay)
        seen.append(np.asarray(memory.estimate(state, rho)))
    return seen


def test_start_at_rho_is_the_plain_recursion():
    seen = estimates("rho", 0.05, 0.9)
    expected = np.full(4, 0.05)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)
    for mean, estimate in zip(MEANS, seen[1:], strict=True):
        expected = 0.9 * expected + 0.1 * mean
        np.testing.assert_allclose(estimate, expected, rtol=1e-5)


def test_start_at_zero_is_corrected_to_the_weighted_mean_of_what_was_seen():
    seen = estimates("zero", 0.05, 0.9)
    np.testing.assert_allclose(seen[0], 0.05, rtol=1e-6)
    for count in (1, 2, 30):
        weights = 0.9 ** np.arange(count)[::-1]
        np.testing.assert_allclose(seen[count], np.average(MEANS[:count], axis=0, weights=weights), rtol=1e-5)


@pytest.mark.parametrize("start", ["rho", "zero"])
def test_decay_zero_is_the_last_batch(start):
    np.testing.assert_allclose(estimates(start, 0.05, 0.0)[-1], MEANS[-1], rtol=1e-6)

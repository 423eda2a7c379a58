"""The Gabor fit."""

import numpy as np
import pytest

from sae_jax.analysis.gabor import gabor, gabor_fit

Y, X = np.mgrid[:10, :8].astype(float)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("angle", [0.0, 0.6, 1.5, 2.8])
@pytest.mark.parametrize("phase", [0.0, 1.0])
def test_a_gabor_function_is_found_again(angle, phase):
    filters = 3 + gabor(np.array([1.0, 4.0, 5.0, 1.5, 2.0, angle, 0.2, phase]), X, Y).reshape(1, -1)
    assert gabor_fit(filters, (10, 8))[0] > 0.98


def test_noise_and_checks_are_no_gabor_functions_and_a_constant_is_none_at_all():
    checks = ((X + Y) % 2).reshape(1, -1)
    noise = RNG.normal(size=(5, 80))
    fits = gabor_fit(np.concatenate([noise, np.ones((1, 80))]), (10, 8))
    assert np.all(fits[:5] < 0.6) and np.isnan(fits[5])
    assert gabor_fit(checks, (10, 8))[0] < 1


def test_noise_lowers_the_fit_by_its_share_of_the_variance():
    clean = gabor(np.array([1.0, 4.0, 5.0, 1.5, 2.0, 0.6, 0.2, 0.0]), X, Y)
    clean = (clean - clean.mean()) / clean.std()
    noisy = clean + 0.5 * RNG.normal(size=clean.shape)
    fit = gabor_fit(noisy.reshape(1, -1), (10, 8))[0]
    assert 0.7 < fit < 0.95

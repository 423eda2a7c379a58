"""Initialisation, encoding and decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.autoencoder import decode, decoder_weight, encode, init
from sae_jax.training.config import Config
from tests import references


def test_initial_weights_are_uniform_within_the_ufldl_limit_and_biases_are_zero():
    params = init(jax.random.key(0), Config(d_hidden=100), 64)
    limit = np.sqrt(6 / (64 + 100 + 1))
    for name, shape in (("encoder_weight", (100, 64)), ("decoder_weight", (100, 64))):
        weights = np.asarray(params[name])
        assert weights.shape == shape
        assert np.abs(weights).max() <= limit
        assert np.quantile(weights, [0.25, 0.5, 0.75]) == pytest.approx([-limit / 2, 0, limit / 2], abs=0.01)
    assert not np.any(params["encoder_bias"]) and not np.any(params["decoder_bias"])


@pytest.mark.parametrize("tied", [False, True])
def test_forward_pass_against_the_reference(samples, tied):
    config = Config(d_hidden=7, tied=tied)
    params = init(jax.random.key(1), config, 16)
    codes = encode(params, samples[:5], config)
    expected = references.sigmoid(samples[:5].astype(np.float64) @ np.asarray(params["encoder_weight"], np.float64).T)
    np.testing.assert_allclose(codes, expected, rtol=1e-5)
    rows = np.asarray(params["encoder_weight" if tied else "decoder_weight"])
    np.testing.assert_allclose(decode(params, codes, config), references.sigmoid(expected @ rows), rtol=1e-5)


def test_tied_weights_hold_one_matrix_and_gather_both_gradients(samples):
    config = Config(d_hidden=7, tied=True, output="linear")
    params = init(jax.random.key(1), config, 16)
    assert "decoder_weight" not in params
    np.testing.assert_array_equal(decoder_weight(params), params["encoder_weight"])
    untied = params | {"decoder_weight": params["encoder_weight"]}

    def loss(p):
        return jnp.sum(decode(p, encode(p, samples[:5], config), config) ** 2)

    both = jax.grad(loss)(untied)
    expected = both["encoder_weight"] + both["decoder_weight"]
    np.testing.assert_allclose(jax.grad(loss)(params)["encoder_weight"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("sigmoid", [0.11920292, 0.5, 0.88079708]),
        ("tanh", [-0.96402758, 0, 0.96402758]),
        ("relu", [0, 0, 2]),
        ("linear", [-2, 0, 2]),
    ],
)
def test_activations_by_name(activation, expected):
    config = Config(d_hidden=1, activation=activation)
    params = {"encoder_weight": jnp.ones((1, 1)), "encoder_bias": jnp.zeros(1)}
    np.testing.assert_allclose(encode(params, jnp.asarray([[-2.0], [0.0], [2.0]]), config)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh"])
def test_only_the_k_largest_codes_of_a_sample_are_kept(samples, activation):
    config = Config(d_hidden=9, activation=activation)
    params = init(jax.random.key(2), config, 16)
    whole = np.asarray(encode(params, samples[:20], config))
    kept = np.asarray(encode(params, samples[:20], config, 4))
    for before, after in zip(whole, kept, strict=True):
        largest = np.argsort(before)[-4:]
        np.testing.assert_array_equal(np.flatnonzero(after), np.sort(largest))
        np.testing.assert_array_equal(after[largest], before[largest])
    np.testing.assert_array_equal(encode(params, samples[:20], config, 0), whole)


def test_products_of_bfloat16_factors_are_summed_in_float32_forward_and_backward(samples):
    """Against NumPy with the factors rounded beforehand: the sums themselves lose nothing."""
    config = Config(d_hidden=7, activation="linear", output="linear", products="bfloat16")
    params, x = init(jax.random.key(1), config, 16), samples[:50]

    def rounded(values):
        return np.asarray(jnp.asarray(values).astype(jnp.bfloat16).astype(jnp.float32), np.float64)

    codes = rounded(x) @ rounded(params["encoder_weight"]).T
    np.testing.assert_allclose(encode(params, x, config), codes, rtol=1e-5, atol=1e-6)
    out = rounded(codes.astype(np.float32)) @ rounded(params["decoder_weight"])
    np.testing.assert_allclose(decode(params, encode(params, x, config), config), out, rtol=1e-5, atol=1e-6)
    assert np.abs(codes - x.astype(np.float64) @ np.asarray(params["encoder_weight"], np.float64).T).max() > 1e-4

    _, pull = jax.vjp(lambda p: decode(p, encode(p, x, config), config), params)
    gradients = pull(jnp.asarray(x))[0]
    to_codes = rounded(x) @ rounded(params["decoder_weight"]).T
    expected = {
        "decoder_weight": rounded(codes.astype(np.float32)).T @ rounded(x),
        "encoder_weight": rounded(to_codes.astype(np.float32)).T @ rounded(x),
    }
    for name, gradient in expected.items():
        assert gradients[name].dtype == jnp.float32
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-4, atol=1e-4)

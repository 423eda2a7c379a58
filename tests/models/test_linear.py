"""The products of a training step beside their plain forms: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.linear import decoder_product, encoder_product, product

RNG = np.random.default_rng(0)
# Seven units, sixteen inputs, fifty samples.
WEIGHT, X, CODES = (RNG.normal(size=shape).astype(np.float32) for shape in ((7, 16), (50, 16), (7, 50)))
TO_UNITS, TO_INPUTS = RNG.normal(size=(7, 50)).astype(np.float32), RNG.normal(size=(50, 16)).astype(np.float32)
# What the engine computes: (the function, its factors, a cotangent of its result).
PRODUCTS = {
    "encoder": (encoder_product, (WEIGHT, X), TO_UNITS),
    "decoder": (decoder_product, (CODES, WEIGHT), TO_INPUTS),
    "by column": (lambda a, b, factors: product(a, b, factors, True), (WEIGHT, TO_UNITS), RNG.normal(size=(16, 50))),
    "by row": (lambda a, b, factors: product(a, b, factors, False), (WEIGHT, TO_UNITS), RNG.normal(size=(16, 50))),
}
# The same by NumPy: the result, and the gradients of both factors.
PLAIN = {
    "encoder": lambda w, x, g: (w @ x.T, g @ x, g.T @ w),
    "decoder": lambda h, w, g: (h.T @ w, w @ g.T, h @ g),
    "by column": lambda a, b, g: (a.T @ b, b @ g.T, a @ g),
    "by row": lambda a, b, g: (a.T @ b, b @ g.T, a @ g),
}


def rounded(values, factors):
    """The values that a product multiplies, in float64."""
    return np.asarray(jnp.asarray(values).astype(factors).astype(jnp.float32), np.float64)


def computed(name, factors):
    """Result and gradients of both factors, compiled."""
    function, arguments, cotangent = PRODUCTS[name]

    def both(cotangent, *arguments):
        value, pull = jax.vjp(lambda *given: function(*given, factors), *arguments)
        return value, *pull(cotangent)

    return jax.jit(both)(cotangent.astype(np.float32), *arguments)


@pytest.mark.parametrize("factors", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_values_and_gradients_are_those_of_the_plain_product(name, factors):
    """Against float64 with the factors rounded beforehand: the sums themselves are not rounded."""
    _, arguments, cotangent = PRODUCTS[name]
    plain = PLAIN[name](*(rounded(one, factors) for one in (*arguments, cotangent)))
    for ours, expected in zip(computed(name, factors), plain, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", PRODUCTS)
def test_rounding_the_factors_shows(name):
    for exact, coarse in zip(computed(name, "float32"), computed(name, "bfloat16"), strict=True):
        assert 1e-3 < np.max(np.abs(exact - coarse)) < 0.3


def test_no_result_and_no_gradient_is_rounded_to_bfloat16():
    for name in PRODUCTS:
        for values in computed(name, "bfloat16"):
            assert np.any(np.asarray(values) != rounded(values, "bfloat16"))


@pytest.mark.parametrize("factors", ["float32", "bfloat16"])
def test_lanes_beside_each_other_compute_what_each_does_alone(factors):
    weights = jnp.stack([WEIGHT, 2 * WEIGHT, -WEIGHT])

    def through(weight):
        return decoder_product(encoder_product(weight, X, factors), weight, factors)

    def loss(weight):
        return jnp.sum(jnp.square(through(weight)))

    together, gradients = jax.vmap(through)(weights), jax.vmap(jax.grad(loss))(weights)
    for weight, value, gradient in zip(weights, together, gradients, strict=True):
        np.testing.assert_allclose(value, through(weight), rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(gradient, jax.grad(loss)(weight), rtol=1e-4, atol=1e-2)


def test_a_wider_factor_sets_the_precision():
    with jax.enable_x64(True):
        assert encoder_product(jnp.asarray(WEIGHT), jnp.asarray(X, jnp.float64), "float32").dtype == jnp.float64

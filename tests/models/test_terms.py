"""Terms of a loss by their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.activations import ACTIVATIONS
from sae_jax.models.classic import encode, init
from sae_jax.models.classic_codes import left_out
from sae_jax.models.terms import contractive_penalty, l1_penalty, reconstruction_loss, weight_decay
from sae_jax.training.config import lane_settings
from tests import references

RNG = np.random.default_rng(0)
# Six samples of four inputs.
LOGITS, TARGETS = RNG.normal(size=(6, 4)), RNG.uniform(0.1, 0.9, size=(6, 4))


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_squared_losses_by_their_formulas(output):
    reconstruction = references.sigmoid(LOGITS) if output == "sigmoid" else LOGITS
    total = sum((a - b) ** 2 for a, b in zip(reconstruction.ravel(), TARGETS.ravel(), strict=True))
    expected = {"squared_error": total / 6, "half_squared_error": total / 12, "mean_squared_error": total / 24}
    for name, value in expected.items():
        loss = reconstruction_loss(jnp.asarray(LOGITS), jnp.asarray(TARGETS), name, output)
        assert float(loss) == pytest.approx(value, rel=1e-5)


def test_bernoulli_is_the_cross_entropy():
    p = references.sigmoid(LOGITS)
    expected = -np.sum(TARGETS * np.log(p) + (1 - TARGETS) * np.log(1 - p)) / 6
    loss = reconstruction_loss(jnp.asarray(LOGITS), jnp.asarray(TARGETS), "bernoulli", "sigmoid")
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_bernoulli_stays_exact_where_the_sigmoid_has_rounded_to_one():
    logits, targets = jnp.asarray([[30.0], [-200.0]]), jnp.asarray([[0.0], [1.0]])
    assert float(reconstruction_loss(logits, targets, "bernoulli", "sigmoid")) == pytest.approx(115, rel=1e-6)
    gradient = jax.grad(lambda z: reconstruction_loss(z, targets, "bernoulli", "sigmoid"))(logits)
    np.testing.assert_allclose(gradient, [[0.5], [-0.5]], rtol=1e-6)


def test_weight_decay_is_half_the_squared_norm_and_spares_biases():
    params = {
        "encoder_weight": jnp.asarray([[1.0, 2.0]]),
        "decoder_weight": jnp.asarray([[3.0], [4.0]]),
        "encoder_bias": jnp.asarray([5.0, 6.0]),
        "decoder_bias": jnp.asarray([7.0]),
    }
    assert float(weight_decay(params)) == (1 + 4 + 9 + 16) / 2


def test_l1_is_the_mean_over_samples_of_the_sum_over_units():
    codes = jnp.asarray([[1.0, -2.0, 0.0], [0.0, 0.5, 0.5]])
    assert float(l1_penalty(codes)) == (3 + 1) / 2


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("k", [0, 3])
def test_the_contractive_penalty_is_the_jacobians_squared_norm(activation, k):
    s = lane_settings(d_hidden=5, activation=activation, k=k).model
    params = init(jax.random.key(0), 7, s)
    params["encoder_bias"] = jnp.linspace(-1.0, 1.0, 5)
    x = jax.random.normal(jax.random.key(1), (11, 7))
    jacobians = jax.jit(jax.vmap(jax.jacrev(lambda one: encode(params, one[None], s)[0])))(x)
    expected = np.mean(np.sum(np.square(jacobians), axis=(1, 2)))
    penalty = jax.jit(
        lambda x: contractive_penalty(params, encode(params, x, s), activation, left_out(encode(params, x, s), s))
    )
    found = penalty(x)
    assert float(found) == pytest.approx(expected, rel=1e-5)

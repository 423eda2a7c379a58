"""Reconstruction losses and the objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.autoencoder import decode_logits, encode, init
from sae_jax.models.losses import objective, reconstruction_loss
from sae_jax.models.penalties import contractive_penalty, l1_penalty
from sae_jax.models.types import Hyperparameters
from sae_jax.settings import UserError
from sae_jax.training.config import Config
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
        loss = reconstruction_loss(
            jnp.asarray(LOGITS), jnp.asarray(TARGETS), Config(reconstruction_loss=name, output=output)
        )
        assert float(loss) == pytest.approx(value, rel=1e-5)


def test_bernoulli_is_the_cross_entropy():
    p = references.sigmoid(LOGITS)
    expected = -np.sum(TARGETS * np.log(p) + (1 - TARGETS) * np.log(1 - p)) / 6
    loss = reconstruction_loss(jnp.asarray(LOGITS), jnp.asarray(TARGETS), Config(reconstruction_loss="bernoulli"))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_bernoulli_stays_exact_where_the_sigmoid_has_rounded_to_one():
    config = Config(reconstruction_loss="bernoulli")
    logits, targets = jnp.asarray([[30.0], [-200.0]]), jnp.asarray([[0.0], [1.0]])
    assert float(reconstruction_loss(logits, targets, config)) == pytest.approx(115, rel=1e-6)
    gradient = jax.grad(lambda z: reconstruction_loss(z, targets, config))(logits)
    np.testing.assert_allclose(gradient, [[0.5], [-0.5]], rtol=1e-6)


def test_bernoulli_with_a_linear_output_is_refused():
    with pytest.raises(UserError, match="bernoulli needs probabilities"):
        Config(reconstruction_loss="bernoulli", output="linear")


def test_objective_and_its_gradient_against_the_reference(samples):
    config = Config(d_hidden=7)
    params = init(jax.random.key(0), config, 16)
    hyper = Hyperparameters(rho=0.1, weight_decay=0.01)
    running = jnp.linspace(0.02, 0.6, 7)
    (loss, aux), gradient = jax.value_and_grad(objective, has_aux=True)(
        params, samples[:32], config, hyper, 2.0, running
    )
    reference = references.Reference(params, rho=0.1, beta=2.0, weight_decay=0.01, ema_decay=0.9)
    reference.mean_activation = np.asarray(running, np.float64)
    x = samples[:32].astype(np.float64)
    np.testing.assert_allclose([loss, aux.reconstruction, aux.penalty], reference.loss(x, 2.0), rtol=1e-5)
    np.testing.assert_allclose(aux.batch_mean, reference.forward(x)[0].mean(axis=0), rtol=1e-5)
    for name, expected in reference.gradients(x, 2.0).items():
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-4, atol=1e-6)


def test_tanh_codes_are_measured_between_zero_and_one(samples):
    config = Config(d_hidden=7, activation="tanh")
    params = init(jax.random.key(0), config, 16)
    _, aux = objective(params, samples[:32], config, Hyperparameters(), 1.0)
    codes = np.tanh(samples[:32] @ np.asarray(params["encoder_weight"]).T)
    np.testing.assert_allclose(aux.batch_mean, (codes.mean(axis=0) + 1) / 2, rtol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_activation_makes_a_nan_however_saturated(samples, activation, scale):
    config = Config(d_hidden=7, activation=activation)
    params = jax.tree.map(lambda leaf: scale * leaf, init(jax.random.key(0), config, 16))
    (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(
        params, samples[:32], config, Hyperparameters(), 3.0
    )
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_the_penalty_never_reaches_the_decoder(samples):
    config = Config(d_hidden=7)
    params = init(jax.random.key(0), config, 16)
    without, with_penalty = (
        jax.grad(lambda p, b=b: objective(p, samples[:32], config, Hyperparameters(), b)[0])(params) for b in (0.0, 9.0)
    )
    for name in ("decoder_weight", "decoder_bias"):
        np.testing.assert_array_equal(without[name], with_penalty[name])
    assert np.any(without["encoder_weight"] != with_penalty["encoder_weight"])


def test_penalties_add_up_each_with_its_own_coefficient(samples):
    config = Config(d_hidden=7)
    params = init(jax.random.key(0), config, 16)
    x, noisy = samples[:32], samples[32:64]

    def loss(**coefficients):
        hyper = Hyperparameters(**({"weight_decay": 0.0, "l1": None, "contractive": None} | coefficients))
        return float(objective(params, x, config, hyper, coefficients.get("beta", 0.0), corrupted=noisy)[0])

    codes = encode(params, noisy, config)
    plain = float(reconstruction_loss(decode_logits(params, codes, config), x, config))
    assert loss() == pytest.approx(plain, rel=1e-6)
    parts = {"beta": 2.0, "l1": 0.3, "contractive": 0.7, "weight_decay": 0.1}
    single = {name: loss(**{name: value}) - plain for name, value in parts.items()}
    assert single["l1"] == pytest.approx(0.3 * float(l1_penalty(codes)), rel=1e-4)
    assert single["contractive"] == pytest.approx(0.7 * float(contractive_penalty(params, codes, "sigmoid")), rel=1e-4)
    assert loss(**parts) == pytest.approx(plain + sum(single.values()), rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
def test_codes_that_k_drops_count_as_silent(activation):
    config = Config(d_hidden=5, activation=activation)
    params = init(jax.random.key(0), config, 4)
    params["encoder_bias"] = jnp.arange(5.0)
    _, aux = objective(params, jnp.asarray(TARGETS, jnp.float32), config, Hyperparameters(), 1.0, k=2)
    assert np.all(np.asarray(aux.batch_mean) == 0, where=np.arange(5) < 3) and np.all(aux.batch_mean[3:] > 0.5)

"""The classic autoencoder: initialisation, encoding, decoding, and the terms of its loss."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models.base import Step
from sae_jax.models.classic import CLASSIC, decode, encode, init
from sae_jax.models.classic_codes import activity
from sae_jax.models.memory import SparsityState
from sae_jax.models.selection import units_at
from sae_jax.models.terms import contractive_penalty, l1_penalty, reconstruction_loss
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings
from tests import references


def settings(**values):
    """The model's settings of a lane."""
    return lane_settings(**{"d_hidden": 7} | values).model


def objective(params, x, s, memory=None, target=None):
    """(the loss with every schedule at its end, (its terms, the batch's mean activity))."""
    terms, batch_mean = CLASSIC.loss(params, memory, Step(x, x if target is None else target), s)
    return functools.reduce(operator.add, terms.values()), (terms, batch_mean)


@pytest.mark.parametrize("name", ["k", "lifetime"])
def test_zeros_of_a_lane_that_keeps_all_are_codes_beside_lanes_that_choose(name):
    alone, zeros = settings(activation="tanh", contractive=1.0, beta=0.0, weight_decay=0.0), jnp.zeros((3, 7))
    # In a program whose other lanes choose it is 0, and not None.
    beside, chooses = (dataclasses.replace(alone, **{name: value}) for value in (0.0, 0.5))
    params = init(jax.random.key(0), 4, alone)
    found = [objective(params, jnp.zeros((3, 4)), s)[1][0]["contractive"] for s in (alone, beside, chooses)]
    assert found[0] == found[1] > 0 == found[2]
    assert [float(jnp.mean(CLASSIC.active(zeros, s))) for s in (alone, beside, chooses)] == [1, 1, 0]
    assert [float(jnp.mean(activity(zeros, s))) for s in (alone, beside, chooses)] == [0.5, 0.5, 0]


def test_initial_weights_are_uniform_within_the_ufldl_limit_and_biases_are_zero():
    params = init(jax.random.key(0), 64, settings(d_hidden=100))
    limit = np.sqrt(6 / (64 + 100 + 1))
    for name, shape in (("encoder_weight", (100, 64)), ("decoder_weight", (100, 64))):
        weights = np.asarray(params[name])
        assert weights.shape == shape
        assert np.abs(weights).max() <= limit
        assert np.quantile(weights, [0.25, 0.5, 0.75]) == pytest.approx([-limit / 2, 0, limit / 2], abs=0.01)
    assert not np.any(params["encoder_bias"]) and not np.any(params["decoder_bias"])


@pytest.mark.parametrize("tied", [False, True])
def test_forward_pass_against_the_reference(samples, tied):
    s = settings(tied=tied)
    params = init(jax.random.key(1), 16, s)
    codes = encode(params, samples[:5], s)
    expected = references.sigmoid(samples[:5].astype(np.float64) @ np.asarray(params["encoder_weight"], np.float64).T)
    np.testing.assert_allclose(codes, expected, rtol=1e-5)
    rows = np.asarray(params["encoder_weight" if tied else "decoder_weight"])
    np.testing.assert_allclose(decode(params, codes, s), references.sigmoid(expected @ rows), rtol=1e-5)


def test_tied_weights_hold_one_matrix_and_gather_both_gradients(samples):
    s = settings(tied=True, output="linear")
    params = init(jax.random.key(1), 16, s)
    assert "decoder_weight" not in params
    np.testing.assert_array_equal(
        CLASSIC.finish(params, CLASSIC.memory(s), s)["decoder_weight"], params["encoder_weight"]
    )
    untied = params | {"decoder_weight": params["encoder_weight"]}

    def loss(p):
        return jnp.sum(decode(p, encode(p, samples[:5], s), s) ** 2)

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
    s = settings(d_hidden=1, activation=activation)
    params = {"encoder_weight": jnp.ones((1, 1)), "encoder_bias": jnp.zeros(1)}
    np.testing.assert_allclose(encode(params, jnp.asarray([[-2.0], [0.0], [2.0]]), s)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh"])
def test_only_the_k_largest_codes_of_a_sample_are_kept(samples, activation):
    s = settings(d_hidden=9, activation=activation)
    params = init(jax.random.key(2), 16, s)
    whole = np.asarray(encode(params, samples[:20], s))
    kept = np.asarray(encode(params, samples[:20], dataclasses.replace(s, k=4)))
    for before, after in zip(whole, kept, strict=True):
        largest = np.argsort(before)[-4:]
        np.testing.assert_array_equal(np.flatnonzero(after), np.sort(largest))
        np.testing.assert_array_equal(after[largest], before[largest])
    np.testing.assert_array_equal(encode(params, samples[:20], dataclasses.replace(s, k=0)), whole)


def test_products_of_bfloat16_factors_are_summed_in_float32_forward_and_backward(samples):
    """Against NumPy with the factors rounded beforehand: the sums themselves lose nothing."""
    s = settings(activation="linear", output="linear", products="bfloat16")
    params, x = init(jax.random.key(1), 16, s), samples[:50]

    def rounded(values):
        return np.asarray(jnp.asarray(values).astype(jnp.bfloat16).astype(jnp.float32), np.float64)

    codes = rounded(x) @ rounded(params["encoder_weight"]).T
    np.testing.assert_allclose(encode(params, x, s), codes, rtol=1e-5, atol=1e-6)
    out = rounded(codes.astype(np.float32)) @ rounded(params["decoder_weight"])
    np.testing.assert_allclose(decode(params, encode(params, x, s), s), out, rtol=1e-5, atol=1e-6)
    assert np.abs(codes - x.astype(np.float64) @ np.asarray(params["encoder_weight"], np.float64).T).max() > 1e-4

    _, pull = jax.vjp(lambda p: decode(p, encode(p, x, s), s), params)
    gradients = pull(jnp.asarray(x))[0]
    to_codes = rounded(x) @ rounded(params["decoder_weight"]).T
    expected = {
        "decoder_weight": rounded(codes.astype(np.float32)).T @ rounded(x),
        "encoder_weight": rounded(to_codes.astype(np.float32)).T @ rounded(x),
    }
    for name, gradient in expected.items():
        assert gradients[name].dtype == jnp.float32
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-4, atol=1e-4)


def test_bernoulli_with_a_linear_output_is_refused():
    with pytest.raises(UserError, match="bernoulli needs probabilities"):
        lane_settings(reconstruction_loss="bernoulli", output="linear")


def test_objective_and_its_gradient_against_the_reference(samples):
    s = settings(rho=0.1, beta=2.0, weight_decay=0.01)
    params = init(jax.random.key(0), 16, s)
    running = jnp.linspace(0.02, 0.6, 7)
    memory = SparsityState(average=running, start_weight=jnp.float32(0))
    (loss, (terms, batch_mean)), gradient = jax.value_and_grad(objective, has_aux=True)(params, samples[:32], s, memory)
    reference = references.Reference(params, rho=0.1, beta=2.0, weight_decay=0.01, ema_decay=0.9)
    reference.mean_activation = np.asarray(running, np.float64)
    x = samples[:32].astype(np.float64)
    np.testing.assert_allclose([loss, terms["reconstruction"], terms["kl"]], reference.loss(x, 2.0), rtol=1e-5)
    np.testing.assert_allclose(batch_mean, reference.forward(x)[0].mean(axis=0), rtol=1e-5)
    for name, expected in reference.gradients(x, 2.0).items():
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-4, atol=1e-6)


def test_only_estimator_ema_judges_training_by_the_running_mean(samples):
    x, s = samples[:32], settings(estimator="batch")
    params = init(jax.random.key(0), 16, s)
    full = SparsityState(average=jnp.full(7, 0.9), start_weight=jnp.float32(0))
    own = objective(params, x, s)[0]
    assert objective(params, x, s, full)[0] == own
    assert objective(params, x, dataclasses.replace(s, estimator="ema"), full)[0] > 1.5 * own
    # Held-out data have no running mean.
    assert objective(params, x, dataclasses.replace(s, estimator="ema"))[0] == own


def test_tanh_codes_are_measured_between_zero_and_one(samples):
    s = settings(activation="tanh")
    params = init(jax.random.key(0), 16, s)
    _, (_, batch_mean) = objective(params, samples[:32], s)
    codes = np.tanh(samples[:32] @ np.asarray(params["encoder_weight"]).T)
    np.testing.assert_allclose(batch_mean, (codes.mean(axis=0) + 1) / 2, rtol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_activation_makes_a_nan_however_saturated(samples, activation, scale):
    s = settings(activation=activation, beta=3.0)
    params = jax.tree.map(lambda leaf: scale * leaf, init(jax.random.key(0), 16, s))
    (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, samples[:32], s)
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_the_penalty_never_reaches_the_decoder(samples):
    params = init(jax.random.key(0), 16, settings())
    gradient = jax.grad(lambda p, s: objective(p, samples[:32], s)[0])
    without, with_penalty = (gradient(params, settings(beta=beta)) for beta in (0.0, 9.0))
    for name in ("decoder_weight", "decoder_bias"):
        np.testing.assert_array_equal(without[name], with_penalty[name])
    assert np.any(without["encoder_weight"] != with_penalty["encoder_weight"])


def test_penalties_add_up_each_with_its_own_coefficient(samples):
    params = init(jax.random.key(0), 16, settings())
    x, noisy = samples[:32], samples[32:64]

    def loss(**coefficients):
        s = settings(**{"beta": 0.0, "weight_decay": 0.0} | coefficients)
        return float(objective(params, noisy, s, target=x)[0])

    codes, logit = encode(params, noisy, settings()), settings(output="linear")
    plain = float(reconstruction_loss(decode(params, codes, logit), x, "squared_error", "sigmoid"))
    assert loss() == pytest.approx(plain, rel=1e-6)
    parts = {"beta": 2.0, "l1": 0.3, "contractive": 0.7, "weight_decay": 0.1}
    single = {name: loss(**{name: value}) - plain for name, value in parts.items()}
    assert single["l1"] == pytest.approx(0.3 * float(l1_penalty(codes)), rel=1e-4)
    assert single["contractive"] == pytest.approx(0.7 * float(contractive_penalty(params, codes, "sigmoid")), rel=1e-4)
    assert loss(**parts) == pytest.approx(plain + sum(single.values()), rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
def test_codes_that_k_drops_count_as_silent(activation):
    s = settings(d_hidden=5, activation=activation, k=2)
    params = init(jax.random.key(0), 4, s)
    params["encoder_bias"] = jnp.arange(5.0)
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(6, 4)).astype(np.float32)
    _, (_, batch_mean) = objective(params, x, s)
    assert np.all(np.asarray(batch_mean) == 0, where=np.arange(5) < 3) and np.all(batch_mean[3:] > 0.5)


def test_k_falls_linearly_and_stays():
    s = settings(d_hidden=100, k=10, k_warmup=0.5)

    def units(number, s=s):
        return int(units_at(Step(None, None, number, steps=40), s))

    kept = [units(t) for t in range(40)]
    np.testing.assert_array_equal(kept[:20], np.round(100 - 4.5 * np.arange(1, 21)))
    assert set(kept[19:]) == {10}
    assert units(30, dataclasses.replace(s, k=0)) == 100
    started = [units(t, dataclasses.replace(s, k_start=40)) for t in range(40)]
    np.testing.assert_array_equal(started[:20], np.round(40 - 1.5 * np.arange(1, 21)))
    assert set(started[19:]) == {10}


def test_a_trained_lane_keeps_a_multiple_of_k_and_training_keeps_k(samples):
    values = {"k": 2, "activation": "linear", "output": "linear", "beta": 0.0, "weight_decay": 0.0}
    plain, wide = settings(**values), settings(k_factor=1.5, **values)
    params = init(jax.random.key(0), 16, plain)
    kept = [np.sum(np.asarray(encode(params, samples[:9], s)) != 0, axis=1) for s in (plain, wide)]
    assert set(kept[0]) == {2} and set(kept[1]) == {3}
    assert set(np.sum(np.asarray(encode(params, samples[:9], settings(k_factor=0.1, k=2))) != 0, axis=1)) == {1}
    losses = [float(objective(params, samples[:9], s)[0]) for s in (plain, wide)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("tied", [False, True])
def test_normal_weights_have_the_deviation_that_was_asked_for(tied):
    s = settings(d_hidden=100, tied=tied)

    def drawn(std):
        return init(jax.random.key(0), 64, dataclasses.replace(s, start_std=std))

    lanes, uniform = jax.vmap(drawn)(jnp.asarray([0.0, 0.01])), drawn(None)
    assert ("decoder_weight" in lanes) is not tied
    for name, (without, normal) in lanes.items():
        np.testing.assert_array_equal(without, uniform[name])
        if name.endswith("weight"):
            assert np.std(normal) == pytest.approx(0.01, rel=0.05) and np.max(np.abs(normal)) > 0.03
        else:
            assert not np.any(normal)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_in_training_a_unit_keeps_its_largest_codes_of_the_batch(samples, activation):
    values = {"activation": activation, "output": "linear", "weight_decay": 0.0, "beta": 0.0}
    s = settings(lifetime=0.2, l1=1.0, **values)
    params = init(jax.random.key(0), 16, s)
    params["encoder_bias"] = jnp.linspace(-1.0, 1.0, 7)
    x = samples[:20]
    codes = np.asarray(encode(params, x, settings(**values)))
    np.testing.assert_array_equal(encode(params, x, s), codes)
    expected = np.where(codes >= np.sort(codes, axis=0)[-4], codes, 0)
    _, (terms, _) = objective(params, x, s)
    assert float(terms["l1"]) == pytest.approx(np.mean(np.sum(np.abs(expected), axis=1)), rel=1e-5)
    rebuilt = expected @ np.asarray(params["decoder_weight"])
    assert float(terms["reconstruction"]) == pytest.approx(np.mean(np.sum((rebuilt - x) ** 2, axis=1)), rel=1e-5)
    whole, off = (float(objective(params, x, settings(lifetime=share, l1=1.0, **values))[0]) for share in (1.0, 0.0))
    assert whole == pytest.approx(off, rel=1e-6)

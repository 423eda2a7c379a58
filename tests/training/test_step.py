"""The training step against the reference; freezing; corruption."""

import dataclasses
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.data.corruption import corrupt
from sae_jax.models import CLASSIC, Step
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state, keys_of, train_step
from tests import references
from tests.example_model import EXAMPLE
from tests.transforms import STEP, assert_close, batches_of

VALUES = {"d_hidden": 7, "batch_size": 32, "steps": 100, "rho": 0.05, "beta": 2.0, "weight_decay": 1e-3}
VALUES |= {"ema_decay": 0.9, "learning_rate": 0.01, "warmup": 0.2, "beta_warmup": 0.3, "noise": 0.3}
SETTINGS = lane_settings(**VALUES)


def test_a_hundred_steps_against_the_reference(samples):
    key = jax.random.key(5)
    state = init_state(keys_of(key).init, SETTINGS, 16)
    reference = references.Reference(state.params, rho=0.05, beta=2.0, weight_decay=1e-3, ema_decay=0.9)
    for t, batch in enumerate(batches_of(5, 100, samples)):
        state, curves = STEP(SETTINGS, state, batch)
        rate = references.learning_rate(t, peak=0.01, warmup_steps=20, steps=100, final=0.0)
        loss = reference.step(batch, rate, 2.0 * min(1.0, (t + 1) / 30))
        shown = [curves["loss"], curves["loss_reconstruction"], curves["loss_kl"]]
        np.testing.assert_allclose(shown, loss, rtol=1e-4)
    for name, expected in reference.params.items():
        np.testing.assert_allclose(state.params[name], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.memory.average, reference.mean_activation, rtol=1e-4)
    assert int(state.step) == 100 and int(state.diverged_at) == -1


def test_the_curves_are_the_loss_and_its_terms_which_add_up(samples):
    settings = lane_settings(**VALUES, l1=0.2, contractive=0.3, estimator="batch")
    _, curves = STEP(settings, init_state(jax.random.key(0), settings, 16), samples[:32])
    terms = ["reconstruction", "kl", "weight_decay", "l1", "contractive"]
    assert set(curves) == {"loss", *(f"loss_{name}" for name in terms)}
    assert all(curves[f"loss_{name}"] > 0 for name in terms)
    assert float(curves["loss"]) == pytest.approx(sum(float(curves[f"loss_{name}"]) for name in terms), rel=1e-6)


def test_lbfgs_reports_the_terms_of_the_loss_where_its_line_search_ended(samples):
    settings = lane_settings(**VALUES, optimizer="lbfgs", estimator="batch")
    state = init_state(keys_of(jax.random.key(5)).init, settings, 16)
    average, batch = np.asarray(state.memory.average), samples[:64]
    for _ in range(8):
        terms, batch_mean = CLASSIC.loss(state.params, state.memory, Step(batch, batch), settings.model)
        average = 0.9 * average + 0.1 * np.asarray(batch_mean)
        state, curves = STEP(settings, state, batch)
        expected = {f"loss_{name}": value for name, value in terms.items()}
        assert_close(curves, {"loss": sum(terms.values()), **expected}, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.memory.average, average, rtol=1e-4)


def test_a_models_gradient_and_constraint_enclose_the_optimizer(samples):
    # Along its rows the decoder's gradient is 0, so that without the constraint plain descent would lengthen them.
    values = {"d_hidden": 5, "optimizer": "sgd", "momentum": 0.0, "warmup": 0.0, "learning_rate": 0.05, "steps": 100}
    settings, free = (
        lane_settings(model, **values) for model in (EXAMPLE, EXAMPLE._replace(constrain=lambda params, *_: params))
    )
    state = init_state(jax.random.key(0), settings, 16)
    before, batch = state.params["decoder_weight"], samples[:32]
    after, longer = (STEP(one, state, batch)[0].params["decoder_weight"] for one in (settings, free))
    np.testing.assert_allclose(jnp.linalg.norm(after, axis=1), 1, rtol=1e-6)
    assert float(jnp.max(jnp.linalg.norm(longer, axis=1))) > 1.001
    np.testing.assert_allclose(jnp.sum(before * (longer - before), axis=1), 0, atol=1e-6)


def test_a_constraint_receives_the_memory_from_before_the_step(samples):
    def constrained(params, memory, s):
        return params | {"decoder_bias": jnp.full_like(params["decoder_bias"], memory.average[0])}

    settings = lane_settings(CLASSIC._replace(constrain=constrained), **VALUES)
    state = init_state(jax.random.key(0), settings, 16)
    after, _ = STEP(settings, state, samples[:32])
    assert float(after.params["decoder_bias"][0]) == float(state.memory.average[0]) != float(after.memory.average[0])


@pytest.mark.parametrize("rho", [0, 2, np.nan, None, "often", [0.1], [[0.1], [0.1, 0.2]], {"rho": 0.1}])
def test_settings_made_by_hand_are_checked_before_the_first_step(samples, rho):
    wrong = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, rho=rho))
    state = init_state(jax.random.key(0), SETTINGS, 16)
    with pytest.raises(UserError, match=f"^rho must be .*: got {re.escape(repr(rho))}; the default is 0.02$"):
        train_step(wrong, state, samples[:32])


@pytest.mark.parametrize("bad", ["batch", "learning rate"])
def test_a_lane_that_diverges_is_frozen_with_its_last_finite_parameters(samples, bad):
    state = init_state(jax.random.key(0), SETTINGS, 16)
    state, _ = STEP(SETTINGS, state, samples[:32])
    before = state
    if bad == "batch":
        state, _ = STEP(SETTINGS, state, np.full((32, 16), np.nan, np.float32))
    else:
        state, _ = STEP(lane_settings(**VALUES | {"learning_rate": 3e38, "warmup": 0.0}), state, samples[32:64])
    assert int(state.diverged_at) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert_close(state.params, before.params)
    assert_close(state.opt_state, before.opt_state)
    later, _ = STEP(SETTINGS, state, samples[64:96])
    assert_close(later, state)


def test_corruption_is_drawn_afresh_each_step_and_the_target_stays_clean(samples):
    settings = lane_settings(**VALUES | {"corruption": "masking", "noise": 0.5})
    state, batch = init_state(jax.random.key(0), settings, 16), samples[:32]
    losses = [
        float(STEP(settings, state, batch, noise_key=jax.random.key(i))[1]["loss_reconstruction"]) for i in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    seen = corrupt(jax.random.key(0), batch, "masking", 0.5)
    terms, _ = CLASSIC.loss(state.params, None, Step(seen, batch), settings.model)
    assert losses[0] == pytest.approx(float(terms["reconstruction"]), rel=1e-6)
    with pytest.raises(UserError, match="corruption masking needs a noise_key"):
        STEP(settings, state, batch)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rho": "0.05"}, "rho must be a number: got '0.05'; make them with lane_settings"),
        ({"rho": Fraction(1, 20)}, "rho must be a number: got a Fraction; make them with lane_settings"),
        ({"d_hidden": 7.0}, "d_hidden must be of type int: got 7.0; make them with lane_settings"),
        ({"beta": 2**31}, "beta must be at most 2147483647 as a whole number: got 2147483648; use a float"),
    ],
)
def test_settings_made_by_hand_are_of_the_kinds_that_programs_take(samples, wrong, words):
    settings = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, **wrong))
    with pytest.raises(UserError, match=f"^{re.escape(words)}$"):
        train_step(settings, init_state(jax.random.key(0), SETTINGS, 16), samples[:32])


def test_an_array_of_settings_is_none_of_a_lane(samples):
    wrong = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, rho=np.full(1, 0.1)))
    with pytest.raises(UserError, match=r"^rho must be a finite number: got an array of shape \[1\] and dtype float64"):
        train_step(wrong, init_state(jax.random.key(0), SETTINGS, 16), samples[:32])


@pytest.mark.parametrize("dtype", [bool, np.int32, np.longdouble])
def test_samples_of_another_kind_are_trained_on_as_single_floats(dtype):
    settings = lane_settings(**VALUES | {"corruption": "masking", "noise": 0.5})
    state, batch = init_state(jax.random.key(0), settings, 16), np.eye(32, 16)
    losses = [
        train_step(settings, state, batch.astype(kind), noise_key=jax.random.key(1))[1]["loss"]
        for kind in (np.float32, dtype)
    ]
    assert float(losses[0]) == float(losses[1])


def test_a_full_batch_optimizer_refuses_a_named_axis(samples):
    settings = lane_settings(**VALUES, optimizer="lbfgs", estimator="batch")
    with pytest.raises(UserError, match="optimizer lbfgs takes the whole batch on one device: got a named axis"):
        STEP(settings, init_state(jax.random.key(0), settings, 16), samples[:32], axis_name="batch")

"""Whole trainings of one lane: any number of steps at a time, curves, early stopping."""

import dataclasses

import jax
import numpy as np
import pytest

from sae_jax.models.losses import heldout_objective
from sae_jax.models.types import Hyperparameters
from sae_jax.training.lane import final_params, fit, init_lane, no_metrics, train_steps, windows
from sae_jax.training.step import init_state, keys_of
from tests.training.test_step import CONFIG, HYPER, STEP, assert_close, batches_of

ADVANCE = jax.jit(train_steps, static_argnums=0)
FIT = jax.jit(fit, static_argnums=0)


def test_fit_is_the_step_repeated_and_its_curves_are_window_means(samples):
    config = dataclasses.replace(CONFIG, steps=450)
    lane, curves = FIT(config, samples, samples[:50], HYPER, jax.random.key(5))
    state = init_state(keys_of(jax.random.key(5)).init, config, HYPER, 16)
    losses = []
    for batch in batches_of(5, 450, samples):
        state, metrics = STEP(config, state, batch, HYPER)
        losses.append(float(metrics.loss))
    assert_close(lane.train.params, state.params, rtol=1e-3, atol=1e-5)
    assert len(windows(450)) == 150
    np.testing.assert_allclose(curves.loss, np.reshape(losses, (150, 3)).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (7, 7), (200, 200), (201, 101), (1000, 200), (10_001, 197)])
def test_logged_points_are_at_most_two_hundred_and_end_at_the_last_step(steps, count):
    stops = windows(steps)
    assert len(stops) == count <= 200
    assert stops[-1] == steps and np.all(np.diff(stops) > 0)


def test_any_number_of_steps_at_a_time_makes_the_same_training(samples):
    key, hyper = jax.random.key(1), HYPER
    begun = init_lane(key, CONFIG, hyper, 16), no_metrics()
    whole = ADVANCE(CONFIG, *begun, samples, hyper, key, 0, 60)
    pieces = begun
    for start, stop in ((0, 1), (1, 40), (40, 60)):
        pieces = ADVANCE(CONFIG, *pieces, samples, hyper, key, start, stop)
    # To the bit, so that a training may be interrupted anywhere.
    jax.tree.map(np.testing.assert_array_equal, pieces, whole)


def test_early_stopping_keeps_the_best_parameters(samples):
    # A learning rate that never falls goes on overfitting 40 samples.
    config = dataclasses.replace(CONFIG, d_hidden=30, batch_size=20, steps=3000, patience=5)
    hyper = Hyperparameters(
        beta=0.0, weight_decay=0.0, learning_rate=0.02, final_learning_rate=1.0, warmup=0.0, beta_warmup=0.0
    )
    train, heldout = samples[:40], samples[300:]
    lane, curves = FIT(config, train, heldout, hyper, jax.random.key(0))
    stopped_at = int(lane.stopped_at)
    assert 0 < stopped_at < 3000
    stops = windows(3000)
    np.testing.assert_array_equal(np.isfinite(curves.loss), stops <= stopped_at)

    watched, endless = [], dataclasses.replace(config, patience=0)
    solo = init_lane(jax.random.key(0), endless, hyper, 16)
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        if stop > stopped_at:
            break
        solo, _ = ADVANCE(endless, solo, no_metrics(), train, hyper, jax.random.key(0), int(start), int(stop))
        watched.append(float(heldout_objective(solo.train.params, heldout, config, hyper)))
    assert int(np.argmin(watched)) == len(watched) - 1 - config.patience
    final = float(heldout_objective(final_params(lane), heldout, config, hyper))
    assert final == pytest.approx(min(watched), rel=1e-4)
    assert int(lane.train.step) == stopped_at


def test_patience_waits_for_the_warmups_and_not_for_lanes_that_have_diverged(samples):
    config = dataclasses.replace(CONFIG, steps=400, patience=1)
    # While beta rises, the full penalty weighs on units that are not yet held: that loss is no reason to stop.
    lane, _ = FIT(config, samples, samples[300:], dataclasses.replace(HYPER, beta_warmup=0.5), jax.random.key(0))
    assert int(lane.stopped_at) == -1 or int(lane.stopped_at) > 200
    wild = dataclasses.replace(HYPER, learning_rate=1e38, warmup=0.0)
    lane, _ = FIT(config, samples, samples[300:], wild, jax.random.key(0))
    assert int(lane.train.diverged_at) >= 0
    assert int(lane.stopped_at) == -1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(final_params(lane)))
    for best, last in zip(jax.tree.leaves(final_params(lane)), jax.tree.leaves(lane.train.params), strict=True):
        np.testing.assert_array_equal(best, last)


def test_patience_changes_nothing_before_it_runs_out(samples):
    patient = dataclasses.replace(CONFIG, patience=1000)
    key = jax.random.key(2)
    plain, _ = FIT(CONFIG, samples, samples[:50], HYPER, key)
    watched, _ = FIT(patient, samples, samples[:50], HYPER, key)
    assert_close(watched.train, plain.train, rtol=1e-5, atol=1e-6)
    assert int(watched.stopped_at) == -1

"""Whole trainings of one lane: any number of steps at a time, logged points, what it ends with."""

import jax
import numpy as np
import pytest

from sae_jax.data.feed import resident
from sae_jax.training.config import lane_settings
from sae_jax.training.lane import curve_names, final_params, fit, init_lane, no_curves, train_steps, windows
from sae_jax.training.step import init_state, keys_of
from tests.example_model import EXAMPLE
from tests.training.test_step import SETTINGS, VALUES
from tests.transforms import STEP, assert_close, batches_of

ADVANCE = jax.jit(train_steps, static_argnums=1)
FIT = jax.jit(fit)


def test_fit_is_the_step_repeated_and_its_curves_are_window_means(samples):
    settings = lane_settings(**VALUES | {"steps": 450})
    lane, curves = FIT(settings, samples, samples[:50], jax.random.key(5))
    state = init_state(keys_of(jax.random.key(5)).init, settings, 16)
    losses = []
    for batch in batches_of(5, 450, samples):
        state, shown = STEP(settings, state, batch)
        losses.append(float(shown["loss"]))
    assert_close(lane.train.params, state.params, rtol=1e-3, atol=1e-5)
    assert len(windows(450)) == 150 and set(curves) == set(curve_names(settings))
    np.testing.assert_allclose(curves["loss"], np.reshape(losses, (150, 3)).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (7, 7), (200, 200), (201, 101), (1000, 200), (10_001, 197)])
def test_logged_points_are_at_most_two_hundred_and_end_at_the_last_step(steps, count):
    stops = windows(steps)
    assert len(stops) == count <= 200
    assert stops[-1] == steps and np.all(np.diff(stops) > 0)


def test_any_number_of_steps_at_a_time_makes_the_same_training(samples):
    key, draw = jax.random.key(1), resident(samples).draw
    start = init_lane(key, SETTINGS, 16), no_curves(SETTINGS)
    whole = ADVANCE(SETTINGS, draw, *start, samples, key, 0, 60)
    pieces = start
    for first, stop in ((0, 1), (1, 40), (40, 60)):
        pieces = ADVANCE(SETTINGS, draw, *pieces, samples, key, first, stop)
    # To the bit, so that a training may be interrupted anywhere.
    jax.tree.map(np.testing.assert_array_equal, pieces, whole)


def test_a_finished_lane_holds_what_its_model_makes_of_the_memory(samples):
    settings = lane_settings(EXAMPLE, d_hidden=5, batch_size=32, steps=40)
    lane, _ = FIT(settings, samples, samples[:50], jax.random.key(0))
    params, peaks = final_params(lane, settings), lane.train.memory
    assert float(peaks.samples) == 40 * 32
    np.testing.assert_allclose(params["threshold"], 0.1 * peaks.peak, rtol=1e-6)
    assert float(params["active_units"]) == pytest.approx(float(np.sum(peaks.fired)) / (40 * 32))
    assert 0 < float(params["active_units"]) < 5 and np.all(np.asarray(params["threshold"]) > 0)

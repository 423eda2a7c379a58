"""Early stopping."""

import jax
import numpy as np
import pytest

from sae_jax.data.feed import resident
from sae_jax.training.config import lane_settings
from sae_jax.training.lane import final_params, init_lane, no_curves, windows
from sae_jax.training.stopping import finished, heldout_loss, schedules_ended
from tests.training.test_lane import ADVANCE, FIT
from tests.training.test_step import SETTINGS, VALUES
from tests.transforms import assert_close


def test_early_stopping_keeps_the_best_parameters(samples):
    # A learning rate that never falls goes on overfitting 40 samples.
    values = VALUES | {"d_hidden": 30, "batch_size": 20, "steps": 3000, "beta": 0.0, "weight_decay": 0.0}
    values |= {"learning_rate": 0.02, "final_learning_rate": 1.0, "warmup": 0.0, "beta_warmup": 0.0, "noise": 0.0}
    settings, endless = (lane_settings(**values, patience=patience) for patience in (70, 0))
    train, heldout = samples[:40], samples[300:]
    lane, curves = FIT(settings, train, heldout, jax.random.key(0))
    stopped_at = int(lane.stopping.stopped_at)
    assert 0 < stopped_at < 3000
    stops = windows(3000)
    np.testing.assert_array_equal(np.isfinite(curves["loss"]), stops <= stopped_at)

    watched, draw = [], resident(train).draw
    solo = init_lane(jax.random.key(0), endless, 16)
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        if stop > stopped_at:
            break
        solo, _ = ADVANCE(endless, draw, solo, no_curves(endless), train, jax.random.key(0), int(start), int(stop))
        watched.append(float(heldout_loss(solo.train.params, heldout, settings)))
    # Looked at every 15 steps: the first point that lies 70 steps or more after the best one.
    assert stopped_at - int(stops[np.argmin(watched)]) == 75
    final = float(heldout_loss(final_params(lane, settings), heldout, settings))
    assert final == pytest.approx(min(watched), rel=1e-4)
    assert int(lane.train.step) == stopped_at


def test_patience_waits_for_the_warmups_and_not_for_lanes_that_have_diverged(samples):
    values = VALUES | {"steps": 400, "patience": 1}
    # While beta rises, the full penalty weighs on units that are not yet held: that loss is no reason to stop.
    slow = lane_settings(**values | {"beta_warmup": 0.5})
    lane, _ = FIT(slow, samples, samples[300:], jax.random.key(0))
    assert int(lane.stopping.stopped_at) == -1 or int(lane.stopping.stopped_at) > 200
    wild = lane_settings(**values | {"learning_rate": 1e38, "warmup": 0.0})
    lane, _ = FIT(wild, samples, samples[300:], jax.random.key(0))
    assert int(lane.train.diverged_at) >= 0
    assert int(lane.stopping.stopped_at) == -1
    final = final_params(lane, wild)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(final))
    for name, last in lane.train.params.items():
        np.testing.assert_array_equal(final[name], last)


def test_the_longest_warmup_ends_the_schedules():
    """The learning rate's, beta's, and k's where codes are chosen; a full-batch optimizer has none."""

    def first_step(**values):
        settings = lane_settings(**{"steps": 100, "warmup": 0.1, "beta_warmup": 0.2, "k_warmup": 0.5} | values)
        return next(step for step in range(101) if schedules_ended(step, settings))

    assert first_step() == 20
    assert first_step(warmup=0.25) == 25
    assert first_step(k=3) == 50
    assert first_step(k=3, optimizer="lbfgs", estimator="batch") == 0


@pytest.mark.parametrize("name", ["relu", "gated"])
def test_a_weight_that_is_steered_has_a_schedule_until_the_end(name):
    def ended(step, **values):
        return bool(schedules_ended(step, lane_settings(name, steps=100, warmup=0.1, l1_warmup=0.2, **values)))

    assert not ended(99, target_l0=2.0) and ended(100, target_l0=2.0)
    assert not ended(19) and ended(20)


def test_the_best_parameters_have_the_threshold_of_their_step(samples):
    values = {"d_hidden": 40, "batch_size": 20, "steps": 600, "k": 4.0, "learning_rate": 0.03, "k_warmup": 0.0}
    values |= {"final_learning_rate": 1.0, "warmup": 0.0}
    settings, endless = (lane_settings("batch_topk", **values, patience=patience) for patience in (60, 0))
    train, key = samples[:30], jax.random.key(0)
    lane, _ = FIT(settings, train, samples[300:], key)
    stopping = lane.stopping
    assert 0 < int(stopping.best_at) <= int(stopping.stopped_at) - 60
    draw, solo = resident(train).draw, init_lane(key, endless, 16)
    solo, _ = ADVANCE(endless, draw, solo, no_curves(endless), train, key, 0, int(stopping.best_at))
    best, expected, last = final_params(lane, settings), final_params(solo, endless), finished(lane.train, settings)
    # On another processor 190 steps may round otherwise; the last threshold is 8% off.
    np.testing.assert_allclose(best["threshold"], expected["threshold"], rtol=1e-3)
    assert abs(best["threshold"][0] / last["threshold"][0] - 1) > 1e-2


def test_patience_changes_nothing_before_it_runs_out(samples):
    patient = lane_settings(**VALUES, patience=1000)
    key = jax.random.key(2)
    plain, _ = FIT(SETTINGS, samples, samples[:50], key)
    watched, _ = FIT(patient, samples, samples[:50], key)
    assert_close(watched.train, plain.train, rtol=1e-5, atol=1e-6)
    assert int(watched.stopping.stopped_at) == -1

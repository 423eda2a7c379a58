"""The training step against the reference and under every transform; windows, whole trainings, freezing, stopping."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from sae_jax.batches import batch_indices
from sae_jax.config import Config
from sae_jax.corruption import corrupt
from sae_jax.losses import heldout_objective, objective
from sae_jax.settings import UserError
from sae_jax.training import final_params, fit, init_lane, init_state, keys_of, train_step, train_window, windows
from sae_jax.types import Hyperparameters
from tests import references

CONFIG = Config(d_hidden=7, batch_size=32, steps=100)
HYPER = Hyperparameters(
    rho=0.05, beta=2.0, weight_decay=1e-3, learning_rate=0.01, warmup=0.2, beta_warmup=0.3, noise=0.3
)
NOISE_KEY = jax.random.key(7)


def assert_close(actual, expected, rtol=0.0, atol=0.0):
    """Compare two pytrees leaf by leaf; without tolerances, bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


STEP = jax.jit(train_step, static_argnums=0)
ADVANCE = jax.jit(train_window, static_argnums=0)
FIT = jax.jit(fit, static_argnums=0)


def batches_of(seed, steps, samples, batch_size=32):
    """The batches that a seed draws, [steps, batch, d_in]."""
    draw = jax.jit(
        jax.vmap(lambda t: batch_indices(keys_of(jax.random.key(seed)).batches, t, len(samples), batch_size))
    )
    return samples[np.asarray(draw(jnp.arange(steps)))]


def test_a_hundred_steps_against_the_reference(samples):
    key = jax.random.key(5)
    state = init_state(keys_of(key).init, CONFIG, HYPER, 16)
    reference = references.Reference(state.params, rho=0.05, beta=2.0, weight_decay=1e-3, ema_decay=0.9)
    for t, batch in enumerate(batches_of(5, 100, samples)):
        state, metrics = STEP(CONFIG, state, batch, HYPER)
        rate = references.learning_rate(t, peak=0.01, warmup_steps=20, steps=100, final=0.0)
        loss = reference.step(batch, rate, 2.0 * min(1.0, (t + 1) / 30))
        np.testing.assert_allclose([metrics.loss, metrics.reconstruction, metrics.penalty], loss, rtol=1e-4)
    for name, expected in reference.params.items():
        np.testing.assert_allclose(state.params[name], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.sparsity.average, reference.mean_activation, rtol=1e-4)
    assert int(state.step) == 100 and int(state.diverged_at) == -1


def with_vmap(config, state, batch):
    step = functools.partial(train_step, config, axis_name="batch", noise_key=NOISE_KEY)
    split = batch.reshape(4, -1, batch.shape[-1])
    return jax.jit(jax.vmap(lambda part: step(state, part, HYPER), axis_name="batch"))(split)


def with_pmap(config, state, batch):
    step = functools.partial(train_step, config, axis_name="batch", noise_key=NOISE_KEY)
    return jax.pmap(lambda part: step(state, part, HYPER), axis_name="batch")(batch.reshape(4, -1, batch.shape[-1]))


def with_shard_map(config, state, batch):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    step = jax.shard_map(
        lambda part: jax.tree.map(lambda leaf: leaf[None], train_step(config, state, part, HYPER, "batch", NOISE_KEY)),
        mesh=mesh,
        in_specs=PartitionSpec("batch"),
        out_specs=PartitionSpec("batch"),
        check_vma=False,
    )
    return jax.jit(step)(batch)


@pytest.mark.parametrize("split", [with_vmap, with_pmap, with_shard_map])
@pytest.mark.parametrize("estimator", ["ema", "batch"])
@pytest.mark.parametrize(("optimizer", "corruption"), [("adam", "none"), ("adam", "masking"), ("sgd", "gaussian")])
def test_a_split_batch_gives_what_one_large_batch_gives(samples, split, estimator, optimizer, corruption):
    config = dataclasses.replace(CONFIG, estimator=estimator, optimizer=optimizer, corruption=corruption)
    state = init_state(jax.random.key(0), config, HYPER, 16)
    # A few steps in, rho_hat and the moments are no longer those of the start.
    for part in np.split(samples[128:256], 4):
        state, _ = STEP(config, state, part, HYPER, noise_key=NOISE_KEY)
    whole = STEP(config, state, samples[:128], HYPER, noise_key=NOISE_KEY)
    parts = split(config, state, samples[:128])
    for device in range(4):
        assert_close(jax.tree.map(lambda leaf, d=device: leaf[d], parts), whole, rtol=1e-4, atol=3e-7)


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


def test_windows_of_any_size_make_the_same_training(samples):
    key, hyper = jax.random.key(1), HYPER
    whole, _ = ADVANCE(CONFIG, init_lane(key, CONFIG, hyper, 16), samples, samples[:50], hyper, key, 0, 60)
    pieces = init_lane(key, CONFIG, hyper, 16)
    for start, stop in ((0, 1), (1, 40), (40, 60)):
        pieces, _ = ADVANCE(CONFIG, pieces, samples, samples[:50], hyper, key, start, stop)
    assert_close(pieces.train, whole.train)


@pytest.mark.parametrize("bad", ["batch", "learning rate"])
def test_a_lane_that_diverges_is_frozen_with_its_last_finite_parameters(samples, bad):
    step = functools.partial(STEP, CONFIG)
    state = init_state(jax.random.key(0), CONFIG, HYPER, 16)
    state, _ = step(state, samples[:32], HYPER)
    before = state
    if bad == "batch":
        state, _ = step(state, np.full((32, 16), np.nan, np.float32), HYPER)
    else:
        state, _ = step(state, samples[32:64], HYPER.replace(learning_rate=jnp.float32(3e38), warmup=0.0))
    assert int(state.diverged_at) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert_close(state.params, before.params)
    assert_close(state.opt_state, before.opt_state)
    later, _ = step(state, samples[64:96], HYPER)
    assert_close(later, state)


def test_corruption_is_drawn_afresh_each_step_and_the_target_stays_clean(samples):
    config = dataclasses.replace(CONFIG, corruption="masking")
    hyper = dataclasses.replace(HYPER, noise=0.5)
    state = init_state(jax.random.key(0), config, hyper, 16)
    batch = samples[:32]
    losses = [
        float(STEP(config, state, batch, hyper, noise_key=jax.random.key(i))[1].reconstruction) for i in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    seen = corrupt(jax.random.key(0), batch, "masking", 0.5)
    expected = objective(state.params, batch, config, hyper, 0.0, corrupted=seen)[1].reconstruction
    assert losses[0] == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(UserError, match="corruption masking needs a noise_key"):
        STEP(config, state, batch, hyper)


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
        solo, _ = ADVANCE(endless, solo, train, heldout, hyper, jax.random.key(0), int(start), int(stop))
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

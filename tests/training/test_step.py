"""The training step against the reference and under every transform; freezing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from sae_jax.data.batches import batch_indices
from sae_jax.data.corruption import corrupt
from sae_jax.models.losses import objective
from sae_jax.models.types import Hyperparameters
from sae_jax.settings import UserError
from sae_jax.training.config import Config
from sae_jax.training.step import init_state, keys_of, train_step
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


def test_lbfgs_reports_the_terms_of_the_loss_where_its_line_search_ended(samples):
    config = dataclasses.replace(CONFIG, optimizer="lbfgs", estimator="batch")
    state = init_state(keys_of(jax.random.key(5)).init, config, HYPER, 16)
    average, batch = np.asarray(state.sparsity.average), samples[:64]
    for _ in range(8):
        loss, aux = objective(state.params, batch, config, HYPER, HYPER.beta)
        average = 0.9 * average + 0.1 * np.asarray(aux.batch_mean)
        state, metrics = STEP(config, state, batch, HYPER)
        np.testing.assert_allclose(metrics, (loss, aux.reconstruction, aux.penalty), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.sparsity.average, average, rtol=1e-4)


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

"""Where batches come from: each is a function of (seed, step), however it is split, stored or resumed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sae_jax
from sae_jax import Data, DataConfig, UserError
from sae_jax.data import feed as feeds
from sae_jax.data.batches import batch_indices
from sae_jax.data.feed import Feed, draw_whole, from_host, generated, resident
from sae_jax.data.normalise import fit
from sae_jax.training.config import lane_settings
from sae_jax.training.lane import init_lane, no_curves, train_steps

# A step that no training here comes to.
LAST = 10**6
BATCH, INPUTS = 32, 16
ROWS = np.random.default_rng(0).uniform(0.1, 0.9, size=(100, INPUTS)).astype(np.float32)
MIXING = np.random.default_rng(1).normal(size=(4, INPUTS)).astype(np.float32)


def generate(key, batch_size):
    """Samples of four causes, in [.1, .9]."""
    return 0.5 + 0.4 * jnp.tanh(jax.random.normal(key, (batch_size, 4)) @ MIXING / 2)


def read(step, batch_size):
    """The batch of a step, from the host."""
    return np.random.default_rng([7, step]).uniform(0.1, 0.9, size=(batch_size, INPUTS)).astype(np.float32)


def batches(first, batch_size, normalisation=None):
    """All batches from a step on."""
    following = (read(step, batch_size) for step in itertools.count(first))
    return following if normalisation is None else map(normalisation.apply, following)


FEEDS = {
    "resident": resident(jnp.asarray(ROWS)),
    "generated": generated(generate),
    "from_host": from_host(batches, INPUTS),
}
every_feed = pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)


@pytest.fixture(autouse=True)
def ten_steps_a_block(monkeypatch):
    monkeypatch.setattr(feeds, "HOST_BLOCK_BYTES", 10 * 4 * BATCH * INPUTS)


def batch(feed, seed, step, first=0, axis_name=None):
    """The batch of a seed and a step, from the block that begins with a step."""
    return feed.draw(feed.block(first, BATCH, LAST), jax.random.key(seed), step, BATCH, axis_name)


@every_feed
def test_a_batch_is_a_function_of_the_seed_and_the_step(feed):
    one = batch(feed, 0, 3)
    assert one.shape == (BATCH, INPUTS) and one.dtype == jnp.float32
    np.testing.assert_array_equal(batch(feed, 0, 3), one)
    assert np.any(batch(feed, 0, 4) != one)
    traced = jax.jit(lambda step: batch(feed, 0, step))
    # Compiled as a whole, a generator may round differently.
    np.testing.assert_allclose(traced(3), one, rtol=1e-6)
    # Nothing of the steps between is carried along.
    np.testing.assert_array_equal([traced(step) for step in (9, 0, 3)][-1], traced(3))


@pytest.mark.parametrize("name", ["resident", "generated"])
def test_every_seed_has_batches_of_its_own(name):
    assert np.any(batch(FEEDS[name], 0, 3) != batch(FEEDS[name], 1, 3))


@every_feed
def test_the_shares_of_two_devices_are_the_whole_batch(feed):
    shares = jax.vmap(lambda _: batch(feed, 0, 3, axis_name="batch"), axis_name="batch", axis_size=2)(jnp.arange(2))
    assert shares.shape == (2, BATCH // 2, INPUTS)
    np.testing.assert_array_equal(shares.reshape(BATCH, INPUTS), batch(feed, 0, 3))


def test_a_resident_batch_is_rows_of_the_array():
    np.testing.assert_array_equal(batch(FEEDS["resident"], 5, 2), ROWS[batch_indices(jax.random.key(5), 2, 100, BATCH)])
    np.testing.assert_array_equal(draw_whole(jnp.asarray(ROWS), jax.random.key(5), 2, BATCH, None), ROWS)


def test_a_host_block_holds_the_batches_of_its_steps():
    feed = FEEDS["from_host"]
    assert feed.steps(BATCH) == 10 and feed.steps(10**9) == 1
    assert FEEDS["resident"].steps(BATCH) is None and FEEDS["generated"].steps(BATCH) is None
    block = feed.block(20, BATCH, LAST)
    assert int(block.first) == 20 and block.batches.shape == (10, BATCH, INPUTS)
    for step in (20, 27, 29):
        np.testing.assert_array_equal(batch(feed, 0, step, first=20), read(step, BATCH))
    # What another block holds of the same steps is the same.
    np.testing.assert_array_equal(batch(feed, 0, 27, first=25), read(27, BATCH))


def test_blocks_in_turn_are_read_by_one_iterator_and_others_by_another():
    begun = []

    def counted(first, batch_size, normalisation):
        begun.append(first)
        return batches(first, batch_size, normalisation)

    feed = from_host(counted, INPUTS)
    for first in (0, 10, 20, 50, 60, 10, 20):
        expected = [read(step, BATCH) for step in range(first, first + 10)]
        np.testing.assert_array_equal(feed.block(first, BATCH, LAST).batches, expected)
    assert begun == [0, 50, 10]


def test_nothing_is_read_that_no_step_takes():
    taken = []

    def counted(first, batch_size, normalisation):
        for step in itertools.count(first):
            taken.append(step)
            yield read(step, batch_size)

    feed = from_host(counted, INPUTS)
    assert feed.block(0, BATCH, 0).batches.shape == (10, BATCH, INPUTS) and taken == []
    feed.block(0, BATCH, 13)
    block = feed.block(10, BATCH, 13)
    assert taken == list(range(13))
    np.testing.assert_array_equal(block.batches[2], read(12, BATCH))
    assert not block.batches[3:].any()


def test_batches_from_the_host_are_normalised_as_rows_are():
    normalisation = fit(ROWS, np.ones(len(ROWS), bool), "standardize", False)
    feed = FEEDS["from_host"].normalised(normalisation)
    block = feed.block(3, BATCH, LAST).batches
    np.testing.assert_array_equal(block[2], normalisation.apply(read(5, BATCH)))
    assert FEEDS["generated"].normalised is None


def test_training_through_two_host_blocks_is_training_from_one_array():
    feed, whole = FEEDS["from_host"], np.concatenate([read(step, BATCH) for step in range(20)])
    settings = lane_settings(d_hidden=7, batch_size=BATCH, steps=20)
    advance, key = jax.jit(train_steps, static_argnums=1), jax.random.key(0)
    start = init_lane(key, settings, INPUTS), no_curves(settings)

    def draw_in_order(rows, key, step, batch_size, axis_name):
        return jax.lax.dynamic_slice_in_dim(rows, step * batch_size, batch_size)

    expected = advance(settings, draw_in_order, *start, whole, key, 0, 20)
    found = start
    for first in (0, 10):
        found = advance(settings, feed.draw, *found, feed.block(first, BATCH, LAST), key, first, first + 10)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    # Interrupted within a block, and taken up from a block that begins there.
    found = advance(settings, feed.draw, *start, feed.block(0, BATCH, LAST), key, 0, 7)
    for first, stop in ((7, 17), (17, 20)):
        found = advance(settings, feed.draw, *found, feed.block(first, BATCH, LAST), key, first, stop)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def streamed(feed, samples=100):
    """Data whose batches a feed gives; `train` is an excerpt."""
    rows = np.asarray(generate(jax.random.key(99), samples + 50))
    return Data(rows[:samples], rows[samples:], DataConfig(dataset="array"), "a stream", stream=feed)


def test_a_sweep_trains_on_generated_samples_and_does_so_again():
    data, settings = streamed(FEEDS["generated"]), {"d_hidden": 5, "steps": 200, "learning_rate": 0.02}
    settings |= {"batch_size": BATCH, "beta": [0.0, 1.0], "seeds": 2}
    first, second = (sae_jax.sweep(data, **settings) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    curve = first["loss_reconstruction"]
    assert np.all(curve.sel(beta=0, step=200) < 0.7 * curve.sel(beta=0, step=1))
    assert np.any(curve.sel(seed=0) != curve.sel(seed=1))
    # The excerpt is not what was trained on.
    assert np.any(sae_jax.sweep(streamed(None), **settings)["loss"] != first["loss"])
    split = sae_jax.sweep(data, **settings, devices=2, data_parallel=2)
    for name in first:
        np.testing.assert_allclose(split[name], first[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_sweep_from_the_host_trains_on_the_batches_of_every_step():
    heldout = ROWS[:20]
    settings = {"d_hidden": 5, "batch_size": BATCH, "steps": 35, "rho": [0.05, 0.1]}

    def trained(feed):
        return sae_jax.sweep(Data(ROWS, heldout, DataConfig(dataset="array"), "", stream=feed), seeds=2, **settings)

    # As a resident array of whole batches in order, which is what the host reads block by block.
    every = np.stack([read(step, BATCH) for step in range(35)])
    whole = Feed(lambda rows, key, step, size, axis: jnp.asarray(rows)[step], lambda first, size, stop: every)
    from_blocks, at_once = trained(from_host(batches, INPUTS)), trained(whole)
    for name in ("loss", "encoder_weight"):
        np.testing.assert_array_equal(from_blocks[name], at_once[name])


def test_a_batch_may_be_larger_than_the_excerpt_of_a_stream():
    data = streamed(FEEDS["generated"], samples=10)
    trained = sae_jax.sweep(data, d_hidden=3, steps=5, batch_size=BATCH)
    assert np.all(np.isfinite(trained["loss"]))


@pytest.mark.parametrize("name", ["generated", "from_host"])
def test_a_full_batch_optimizer_refuses_a_stream(name):
    with pytest.raises(UserError, match="optimizer lbfgs takes all samples at every step: got a stream of batches"):
        sae_jax.sweep(streamed(FEEDS[name]), d_hidden=3, steps=5, optimizer="lbfgs", estimator="batch")

"""Functions of the step and Grain datasets as what a sweep trains on."""

import grain
import numpy as np
import pytest

import sae_jax
from sae_jax import UserError, as_stream
from sae_jax.data import batch_sources

# A step that no training here comes to.
LAST = 10**6
BATCH, WIDTH = 16, 6
ROWS = np.random.default_rng(0).normal(size=(160, WIDTH)).astype(np.float32)
SETTINGS = {"d_hidden": 5, "batch_size": BATCH, "steps": 30, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def small_excerpts(monkeypatch):
    monkeypatch.setattr(batch_sources, "ROWS_READ_AHEAD", 2 * BATCH)


def batch(step):
    return np.random.default_rng([3, step]).normal(size=(BATCH, WIDTH)).astype(np.float32)


def of_grain():
    return grain.MapDataset.source(ROWS).seed(4).shuffle().batch(BATCH, drop_remainder=True)


SOURCES = {
    "function": batch,
    "MapDataset": of_grain(),
    "IterDataset": of_grain().repeat().to_iter_dataset(),
}


def expected(name, step):
    """The batch of a step, from the source itself."""
    return batch(step) if name == "function" else of_grain()[step]


def test_the_first_batches_of_a_function_are_held_out_and_the_others_trained_on():
    data = as_stream(batch)
    np.testing.assert_array_equal(data.heldout, np.concatenate([batch(step) for step in (0, 1)]))
    np.testing.assert_array_equal(data.train, np.concatenate([batch(step) for step in (2, 3)]))
    for first in (0, 5):
        block = data.stream.block(first, BATCH, LAST)
        for step in (first, first + 7):
            np.testing.assert_array_equal(block.batches[step - first], batch(step + 2), err_msg=str(step))


def test_no_step_after_the_last_is_asked_for():
    def short(step):
        assert step < 32, "30 steps after the two batches that are held out"
        return batch(step)

    assert np.isfinite(sae_jax.sweep(short, "topk", k=2, **SETTINGS)["loss"]).all()


def test_what_is_held_out_of_a_dataset_is_never_trained_on():
    data = as_stream(of_grain())
    np.testing.assert_array_equal(data.heldout, np.concatenate([of_grain()[step] for step in (0, 1)]))
    block = data.stream.block(0, BATCH, LAST).batches
    assert len(block) > 3 * 8
    for step, rows in enumerate(block):
        np.testing.assert_array_equal(rows, of_grain()[2 + step % 8], err_msg=str(step))
    np.testing.assert_array_equal(data.stream.block(13, BATCH, LAST).batches[:9], block[13:22])
    assert np.isfinite(sae_jax.sweep(of_grain(), "topk", k=2, **SETTINGS)["loss"]).all()


@pytest.mark.parametrize("source", [of_grain().repeat(), SOURCES["IterDataset"]], ids=["repeated", "IterDataset"])
def test_of_a_dataset_without_an_end_samples_are_held_out_by_name(source):
    with pytest.raises(
        UserError, match=r"needs samples to be held out, since its own come again: got .*; use as_stream"
    ):
        sae_jax.sweep(source, "topk", k=2, **SETTINGS)


def test_a_dataset_must_have_more_batches_than_are_held_out():
    with pytest.raises(UserError, match="must have more batches than are held out: got 2 and 2; add some"):
        as_stream(grain.MapDataset.source(ROWS[: 2 * BATCH]).batch(BATCH))


@pytest.mark.parametrize("name", SOURCES)
def test_with_samples_held_out_every_batch_is_trained_on(name):
    data = as_stream(SOURCES[name], ROWS[:20])
    np.testing.assert_array_equal(data.heldout, ROWS[:20])
    np.testing.assert_array_equal(data.stream.block(0, BATCH, LAST).batches[3], expected(name, 3))


@pytest.mark.parametrize("name", SOURCES)
def test_a_sweep_takes_it_and_a_lane_is_its_solo_run(name):
    source = SOURCES[name] if name == "function" else as_stream(SOURCES[name], ROWS[:20])
    grid = sae_jax.sweep(source, "topk", k=[1, 2], seeds=2, **SETTINGS)
    solo = sae_jax.sweep(source, "topk", k=2, seeds=[1], **SETTINGS)
    lane = grid.sel(k=2, seed=1)
    np.testing.assert_allclose(solo["decoder_weight"].squeeze(), lane["decoder_weight"], rtol=1e-5, atol=1e-6)
    assert np.all(np.isfinite(grid["eval_explained_variance"]))


def ragged(step):
    return batch(step)[: BATCH - (step == 2)]


BAD = {
    "shapes": (ragged, r"batches of ragged must be of one shape: got \(15, 6\) and \(16, 6\); drop the remainder"),
    "NaN": (lambda step: batch(step) * np.nan, "batch 0 of <lambda> must be finite in single precision"),
    "one axis": (lambda step: batch(step)[0], r"batch 0 of <lambda> must be an array \[batch, d_in\]: got shape \[6\]"),
    "nothing": (lambda step: None, "batch 0 of <lambda> must be an array"),
    "an end": (grain.MapDataset.source(ROWS).batch(BATCH).to_iter_dataset(), "must have a batch for every step"),
}


@pytest.mark.parametrize(("source", "message"), BAD.values(), ids=BAD)
def test_what_gives_no_batches_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        sae_jax.sweep(as_stream(source, ROWS[:20]), "topk", k=2, **SETTINGS)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="batch_size must be that of the batches of batch, 16: got 8; set it to that"):
        sae_jax.sweep(batch, "topk", k=2, **SETTINGS | {"batch_size": 8})
    with pytest.raises(UserError, match="heldout is a setting of no stream: got it beside samples"):
        sae_jax.sweep(batch, "topk", k=2, heldout=0.2, **SETTINGS)
    with pytest.raises(UserError, match="a source must be a function step -> batch, or a Grain dataset: got"):
        as_stream(ROWS)

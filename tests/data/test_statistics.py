"""Statistics that parameters start from, and how far samples lie from 0."""

import jax
import numpy as np
import pytest

import sae_jax
from sae_jax.data.statistics import geometric_median, mean, offset, statistics_of
from sae_jax.settings import UserError
from tests.watching import Watcher

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(400, 5)) * [1, 2, 3, 4, 5] + [5, 4, 3, 2, 1]


def test_the_geometric_median_is_where_unit_vectors_to_the_samples_cancel():
    towards = ROWS - geometric_median(ROWS)
    pull = np.mean(towards / np.linalg.norm(towards, axis=1, keepdims=True), axis=0)
    assert np.linalg.norm(pull) < 1e-5
    # The mean is no such point, so that the test can fail.
    towards = ROWS - mean(ROWS)
    assert np.linalg.norm(np.mean(towards / np.linalg.norm(towards, axis=1, keepdims=True), axis=0)) > 1e-3


def test_a_few_samples_far_away_move_the_mean_and_hardly_the_median():
    away = np.concatenate([ROWS, np.full((20, 5), 1e3)])
    assert np.linalg.norm(mean(away) - mean(ROWS)) > 50
    assert np.linalg.norm(geometric_median(away) - geometric_median(ROWS)) < 1


def test_equal_samples_are_their_own_median():
    np.testing.assert_allclose(geometric_median(np.full((7, 3), 2.5)), 2.5)
    assert offset(np.full((7, 3), 2.5)) == np.inf and offset(np.zeros((7, 3))) == 0


def test_gamma_is_the_means_norm_over_the_spreads():
    assert offset(ROWS) == pytest.approx(np.linalg.norm(ROWS.mean(0)) / np.sqrt(ROWS.var(0).sum()))


@pytest.mark.parametrize("centre", ["mean", "median"])
def test_the_decoder_bias_starts_where_it_is_said(centre):
    settings = sae_jax.lane_settings("topk", d_hidden=8, k=2, centre=centre)
    statistics = statistics_of(ROWS, [centre])
    state = sae_jax.init_state(jax.random.key(0), settings, 5, statistics)
    np.testing.assert_array_equal(state.params["decoder_bias"], statistics[centre])
    with pytest.raises(UserError, match=f"statistics must hold the {centre} of the samples"):
        sae_jax.init_state(jax.random.key(0), settings, 5)
    with pytest.raises(UserError, match=r"statistics must be arrays \[4\], as d_in says: got \w+ of shape \[5\]"):
        sae_jax.init_state(jax.random.key(0), settings, 4, statistics)


@pytest.mark.parametrize(("model", "centre"), [("topk", ["zero", "mean"]), ("relu", "zero"), ("classic", None)])
def test_a_sweep_says_how_far_from_0_its_samples_lie(model, centre):
    watcher, chosen = Watcher(), {} if centre is None else {"centre": centre}
    far = np.float32(ROWS / 30 + 0.5)
    output = {"output": "linear"} if model == "classic" else {}
    sae_jax.sweep(far, model, d_hidden=8, steps=2, batch_size=16, observers=[watcher], **chosen, **output)
    lines = [line for line in watcher.lines if "gamma" in line]
    gamma = f"data: gamma, ||mean|| / ||std||, is {offset(sae_jax.as_data(far).train):.3g}"
    hinted = f"{gamma}; units may die: use centre mean, or normalize centre (it is zero)"
    assert lines == {"topk": [hinted, gamma], "relu": [hinted], "classic": []}[model]

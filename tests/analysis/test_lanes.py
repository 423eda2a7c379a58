"""Trained lanes come back from a Dataset as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import Config, DataConfig, UserError, encode, sweep
from sae_jax.analysis.lanes import grid_of, trained

SETTINGS = {"beta": [0.5, 1.0], "tied": [False, True], "rho": [0.05, 0.1], "d_hidden": [3, 5]}


@pytest.fixture(scope="module")
def dataset():
    return sweep(Config(steps=2, batch_size=20), DataConfig(dataset="digits", samples=50), seeds=[4, 7], **SETTINGS)


def test_the_grid_comes_back_with_its_axes_in_order(dataset):
    grid = grid_of(dataset)
    assert list(grid.axes) == list(SETTINGS) and grid.seeds == (4, 7)
    assert grid.data.samples == 50 and grid.config.steps == 2 and grid.fixed["weight_decay"] == 1e-3


def test_every_lane_has_the_parameters_and_settings_of_its_place(dataset):
    programs = trained(dataset)
    assert [lanes.point for lanes in programs] == [
        {"tied": tied, "d_hidden": width} for tied in (False, True) for width in (3, 5)
    ]
    for lanes in programs:
        assert lanes.dims == ("beta", "rho", "seed") and lanes.shape == (2, 2, 2)
        assert ("decoder_weight" in lanes.lanes.params) != lanes.config.tied
        lane = jax.tree.map(lambda leaf: jnp.asarray(leaf[6]), lanes.lanes)
        assert (float(lane.hyper.beta), float(lane.hyper.rho), int(lane.seed)) == (1.0, np.float32(0.1), 4)
        there = dataset.sel(beta=1.0, rho=0.1, seed=4, **lanes.point)
        np.testing.assert_array_equal(lane.params["encoder_weight"], there["encoder_weight"].dropna("unit"))
        mean = encode(lane.params, lanes.data.heldout, lanes.config).mean(axis=0)
        np.testing.assert_allclose(mean, there["eval_mean_activation"].dropna("unit"), rtol=1e-5)


def test_results_that_do_not_name_their_settings_are_refused(dataset):
    for attrs in ({}, {"config": "{"}, {"config": '{"rho": 0.1}'}, {"config": "[3]"}):
        bare = dataset.copy()
        bare.attrs = attrs
        with pytest.raises(UserError, match=r"results must name the (settings|seeds) they were trained with"):
            grid_of(bare)
    with pytest.raises(UserError, match="results must have the axes of their own settings"):
        trained(dataset.isel(seed=[0]))

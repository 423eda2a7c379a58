"""Trained lanes come back from a Dataset as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import CLASSIC, DataConfig, UserError, as_data, encode, sweep
from sae_jax.analysis.lanes import trained
from sae_jax.sweeps.reading import grid_of

SETTINGS = {"beta": [0.5, 1.0], "tied": [False, True], "rho": [0.05, 0.1], "d_hidden": [3, 5]}


@pytest.fixture(scope="module")
def dataset():
    return sweep(DataConfig(dataset="digits", samples=50), seeds=[4, 7], steps=2, batch_size=20, **SETTINGS)


def test_the_grid_comes_back_with_its_axes_in_order(dataset):
    grid = grid_of(dataset)
    assert list(grid.axes) == list(SETTINGS) and grid.seeds == (4, 7)
    assert grid.data.samples == 50 and grid.fixed["steps"] == 2 and grid.fixed["weight_decay"] == 7e-5


def test_every_lane_has_the_parameters_and_settings_of_its_place(dataset):
    programs = trained(dataset)
    assert [lanes.point for lanes in programs] == [
        {"tied": tied, "d_hidden": width} for tied in (False, True) for width in (3, 5)
    ]
    for lanes in programs:
        assert lanes.dims == ("beta", "rho", "seed") and lanes.shape == (2, 2, 2)
        tied = lanes.lanes.settings.model.tied
        assert tied is lanes.point["tied"]
        lane = jax.tree.map(lambda leaf: jnp.asarray(leaf[6]), lanes.lanes)
        assert (float(lane.settings.model.beta), float(lane.settings.model.rho), int(lane.seed)) == (
            1.0,
            np.float32(0.1),
            4,
        )
        there = dataset.sel(beta=1.0, rho=0.1, seed=4, **lanes.point)
        np.testing.assert_array_equal(lane.params["encoder_weight"], there["encoder_weight"].dropna("unit"))
        shapes = {name: np.shape(values) for name, values in lane.params.items()}
        assert shapes["decoder_weight"] == shapes["encoder_weight"] == (lanes.point["d_hidden"], 64)
        assert np.array_equal(lane.params["decoder_weight"], lane.params["encoder_weight"]) == tied
        mean = encode(lane.params, lanes.data.heldout, lane.settings).mean(axis=0)
        np.testing.assert_allclose(mean, there["eval_mean_activation"].dropna("unit"), rtol=1e-5)


def test_results_that_do_not_name_their_settings_are_refused(dataset):
    for attrs in ({}, {"config": "{"}, {"config": '{"model": "classic"}'}, {"config": "[3]"}):
        bare = dataset.copy()
        bare.attrs = attrs
        with pytest.raises(UserError, match=r"results must name the settings they were trained with: got an attribute"):
            grid_of(bare)
    with pytest.raises(UserError, match="results must name the seeds they were trained with"):
        grid_of(dataset.drop_vars("seed"))
    with pytest.raises(UserError, match="results must keep the coordinates of what varied: got none of rho; select"):
        grid_of(dataset.isel(rho=0, drop=True))
    with pytest.raises(UserError, match="results must name the settings along every dimension: got none along x"):
        grid_of(dataset.rename(beta="x").assign_attrs(axes="[]"))


def test_a_model_of_ones_own_comes_back_by_its_record(samples):
    mine = CLASSIC._replace(name="mine", parameters=lambda s: {"encoder_bias": CLASSIC.parameters(s)["encoder_bias"]})
    made = sweep(samples, mine, rho=[0.05, 0.1], steps=2, batch_size=20, d_hidden=3)
    with pytest.raises(UserError, match="unknown model mine"):
        grid_of(made)
    assert grid_of(made, mine).model is mine and grid_of(made, mine).axes == {"rho": (0.05, 0.1)}
    with pytest.raises(UserError, match="results must hold encoder_weight over rho, seed, unit, input: got none"):
        trained(made, as_data(samples), model=CLASSIC)
    [lanes] = trained(made, as_data(samples), model=mine)
    assert list(lanes.lanes.params) == ["encoder_bias"]

"""A sweep made larger is the larger sweep."""

import json

import numpy as np
import pytest

from sae_jax import DataConfig, UserError, as_data, extend, merge, sweep
from tests.watching import Watcher

SETTINGS = {"d_hidden": 4, "batch_size": 20, "steps": 30, "cells_per_block": 2}
SMALL = {"rho": [0.05, 0.1], "beta": [0.5, 1.0]}


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples[:200])


@pytest.fixture(scope="module")
def small(data):
    return sweep(data, seeds=2, **SMALL, **SETTINGS)


def same(made, whole):
    for name, values in whole.data_vars.items():
        assert made[name].dims == values.dims and made[name].dtype == values.dtype
        assert made[name].values.tobytes() == values.values.tobytes(), name


def test_missing_cells_and_seeds_are_trained_and_the_whole_has_the_bits_of_one_training(small, data):
    watching = Watcher()
    made = extend(small, data, seeds=3, rho=[0.02, 0.05, 0.1], cells_per_block=2, observers=[watching])
    whole = sweep(data, seeds=3, **SMALL | {"rho": [0.02, 0.05, 0.1]}, **SETTINGS)
    same(made, whole)
    assert made.attrs == whole.attrs and set(made.coords) == set(whole.coords)
    assert len(watching.lanes) == 10
    assert "extending the sweep: 8 lanes taken from it, 10 to train" in watching.lines


def test_a_setting_that_did_not_vary_becomes_an_axis(small, data):
    made = extend(small, data, l1=[0.0, 0.1], d_hidden=[4, 6], cells_per_block=2)
    assert made.sizes["l1"] == made.sizes["d_hidden"] == 2
    part = made.sel(l1=0.0, d_hidden=4)
    np.testing.assert_array_equal(part["loss"], small["loss"])
    np.testing.assert_array_equal(part["loss_l1"], np.zeros_like(small["loss"]))
    alone = sweep(data, rho=0.1, beta=1.0, l1=0.1, seeds=[1], **SETTINGS | {"d_hidden": 6})
    there = made.sel(rho=0.1, beta=1.0, l1=0.1, d_hidden=6, seed=[1])
    np.testing.assert_allclose(there["loss"], alone["loss"], rtol=1e-5)
    np.testing.assert_allclose(there["encoder_weight"], alone["encoder_weight"], rtol=1e-5, atol=1e-6)


def test_pairs_and_holes_are_filled(data):
    pairs = sweep(data, rho=[0.05, 0.1], beta=[3.0, 1.0], zip=("rho", "beta"), **SETTINGS)
    watching = Watcher()
    made = extend(pairs, data, rho=[0.02, 0.05, 0.1], beta=[5.0, 3.0, 1.0], cells_per_block=2, observers=[watching])
    assert made["loss"].dims == ("rho_beta", "seed", "step") and len(watching.lanes) == 1
    np.testing.assert_array_equal(made["loss"][1:], pairs["loss"])
    corner = merge(pairs.isel(rho_beta=0), sweep(data, rho=0.05, beta=3.0, seeds=[4], **SETTINGS))
    holes = merge(corner, sweep(data, rho=0.1, beta=3.0, seeds=[4], **SETTINGS))
    assert int(holes["diverged_at"].isnull().sum()) == 1
    filled = extend(holes, data, cells_per_block=2)
    assert np.isfinite(filled["loss"]).all() and filled["diverged_at"].dtype == "int32"


def test_what_is_no_larger_grid_or_has_other_samples_is_refused(small, data, samples):
    with pytest.raises(
        UserError, match=r"must hold every lane of the sweep: got one without rho 0.1, beta 0.5, seed 0;"
    ):
        extend(small, data, rho=[0.02, 0.05])
    with pytest.raises(UserError, match=r"must hold every lane .*: got one without rho 0.05, beta 0.5, seed 1"):
        extend(small, data, seeds=[0])
    with pytest.raises(UserError, match="must hold every lane of the sweep"):
        extend(small, data, steps=31)
    with pytest.raises(UserError, match="the samples must be those of the sweep: got others; put the same back"):
        extend(small, as_data(samples[1:201]), seeds=3)
    with pytest.raises(UserError, match="unknown setting roh"):
        extend(small, data, roh=[0.1])


def test_a_selected_part_is_extended_too(small, data):
    made = extend(small.sel(beta=1.0), data, beta=[0.5, 1.0], cells_per_block=2)
    np.testing.assert_allclose(made["loss"].transpose(*small["loss"].dims), small["loss"], rtol=1e-5)


def test_a_run_of_an_earlier_version_whose_summary_was_rounded_otherwise_is_extended(small, data):
    rounded = [one * (1 + 1e-7) if isinstance(one, float) else one for one in data.summary]
    earlier = small.drop_vars("data_summary").assign_attrs(data=json.dumps([rounded]))
    whole = extend(earlier, data, seeds=2, rho=[0.05, 0.1, 0.2])
    np.testing.assert_array_equal(whole["loss"].sel(rho=[0.05, 0.1]), small["loss"])
    others = small.drop_vars("data_summary").assign_attrs(data=json.dumps([[2 * one for one in rounded]]))
    with pytest.raises(UserError, match="cannot extend: the samples must be those of"):
        extend(others, data, seeds=2, rho=[0.05, 0.1, 0.2])


def test_samples_that_were_moved_are_known_again_and_others_are_refused(samples, tmp_path):
    for name, rows in (("here", samples[:200]), ("there", samples[:200]), ("others", samples[200:400])):
        np.save(tmp_path / f"{name}.npy", rows)
    sources = {name: DataConfig(dataset=f"array:{tmp_path}/{name}.npy") for name in ("here", "there", "others")}
    before = sweep(sources["here"], rho=[0.05], seeds=1, **SETTINGS)
    moved = extend(before, sources["there"], seeds=2)
    assert moved["dataset"].item().endswith("there.npy")
    same(moved.isel(seed=[0]), before)
    with pytest.raises(UserError, match="cannot extend: the samples must be those of the sweep: got others"):
        extend(before, sources["others"], seeds=2)

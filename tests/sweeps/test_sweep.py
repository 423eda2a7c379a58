"""A sweep: one labelled array, whose every lane is what training it alone gives."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import xarray as xr
from jax.flatten_util import ravel_pytree

from sae_jax import CLASSIC, DataConfig, Step, UserError, as_data, lane_settings, load, sweep
from sae_jax.models.activations import ACTIVATIONS
from sae_jax.storage.arrays import in_folder, in_memory
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.sweep import train
from sae_jax.training.evaluation import evaluate
from sae_jax.training.lane import final_params, fit, windows
from sae_jax.training.step import keys_of

SETTINGS = {"d_hidden": 6, "batch_size": 32, "steps": 100}
PARAMETERS = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
GRID = {"rho": [0.05, 0.1, 0.2], "beta": [0.5, 2.0], "learning_rate": 0.01}


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


@pytest.fixture(scope="module")
def whole(data):
    return sweep(data, seeds=3, **SETTINGS, **GRID)


def test_the_result_is_one_labelled_array(whole):
    assert dict(whole.sizes) == {"rho": 3, "beta": 2, "seed": 3, "step": 100, "unit": 6, "input": 16}
    for name in ("loss", "loss_reconstruction", "loss_kl", "loss_weight_decay"):
        assert whole[name].dims == ("rho", "beta", "seed", "step")
    for name in ("reconstruction", "explained_variance", "l0", "dead_fraction"):
        assert whole[f"eval_{name}"].dims == ("rho", "beta", "seed")
    assert whole["eval_mean_activation"].dims == ("rho", "beta", "seed", "unit")
    assert whole["encoder_weight"].dims == ("rho", "beta", "seed", "unit", "input")
    for variable in whole.variables.values():
        assert set(variable.attrs) >= {"long_name", "units"}
    assert "code > 0.1" in whole["eval_l0"].attrs["long_name"]
    assert "code > 0.1" in whole["eval_dead_fraction"].attrs["long_name"]
    assert np.all(whole["diverged_at"] == -1) and np.all(whole["stopped_at"] == -1)
    unclipped = {"input_limit"}
    assert all(np.all(np.isfinite(variable)) for name, variable in whole.data_vars.items() if name not in unclipped)


@pytest.mark.parametrize("point", [{"rho": 0.05, "beta": 0.5, "seed": 0}, {"rho": 0.2, "beta": 2.0, "seed": 2}])
def test_a_lane_equals_its_solo_run(whole, data, point):
    settings = lane_settings(rho=point["rho"], beta=point["beta"], learning_rate=0.01, **SETTINGS)
    lane, curves = jax.jit(fit)(settings, data.train, data.heldout, jax.random.key(point["seed"]))
    there = whole.sel(point)
    for name, values in final_params(lane, settings).items():
        np.testing.assert_allclose(there[name], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(there["loss"], curves["loss"], rtol=1e-5)
    measured = evaluate(final_params(lane, settings), data.heldout, settings)
    np.testing.assert_allclose(there["eval_mean_activation"], measured["mean_activation"], rtol=1e-5)
    np.testing.assert_allclose(there["eval_firing_rate"], measured["firing_rate"], rtol=1e-5)
    np.testing.assert_allclose(there["eval_explained_variance"], measured["explained_variance"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"devices": 1},
        {"devices": 3},
        {"devices": 2, "lanes_per_chunk": 4},
        {"devices": 4, "lanes_per_chunk": 1},
        {"devices": 2, "cells_per_block": 4, "blocks": "in_parallel"},
    ],
    ids=lambda how: " ".join(f"{name}={value}" for name, value in how.items()),
)
def test_a_lane_depends_neither_on_devices_nor_on_chunks_nor_on_blocks(whole, data, how):
    other = sweep(data, seeds=3, **SETTINGS, **GRID, **how)
    for name, values in whole.data_vars.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_lanes_kept_in_files_are_those_kept_in_memory(data, tmp_path):
    settings = SETTINGS | {"d_hidden": [4, 6], "rho": [0.05, 0.1], "steps": [10, 20], "beta": [0.5, 1.0]}
    engine, quiet = Engine(devices=2, lanes_per_chunk=3), Observer()
    study = prepare(data, "classic", seeds=3, engine=engine, observer=quiet, **settings)
    with in_folder(tmp_path / "unfinished") as opened:
        made = train(study, quiet, opened)
        assert len(list((tmp_path / "unfinished").glob("*.npy"))) == 17
        xr.testing.assert_identical(made, train(study, quiet, in_memory()))


def test_a_lane_does_not_depend_on_the_grid_around_it(whole, data):
    part = sweep(data, seeds=[2], rho=[0.1], beta=2.0, learning_rate=0.01, **SETTINGS)
    there = whole.sel(rho=[0.1], beta=2.0, seed=[2])
    for name in ("loss", "eval_mean_activation", *PARAMETERS):
        np.testing.assert_allclose(part[name], there[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_cells_of_one_seed_share_initialisation_and_batches(data):
    still = sweep(data, seeds=2, rho=[0.05, 0.1], learning_rate=1e-12, **SETTINGS)
    first, second = still["encoder_weight"].isel(rho=0), still["encoder_weight"].isel(rho=1)
    np.testing.assert_array_equal(first, second)
    assert np.all(first.isel(seed=0) != first.isel(seed=1))
    # Untrained lanes see the same samples in the same order, so their reconstruction terms agree to the last bit.
    np.testing.assert_array_equal(still["loss_reconstruction"].isel(rho=0), still["loss_reconstruction"].isel(rho=1))


def test_a_lane_that_diverges_changes_no_other_by_a_bit(data):
    sane = SETTINGS | {"beta": 1.0, "seeds": 2, "devices": 2}
    mixed = sweep(data, learning_rate=[0.01, 1e38, 0.02], **sane)
    calm = sweep(data, learning_rate=[0.01, 0.01001, 0.02], **sane)
    assert np.all(mixed["diverged_at"].isel(learning_rate=1) >= 0)
    assert np.all(mixed["diverged_at"].isel(learning_rate=[0, 2]) == -1)
    beside = mixed.isel(learning_rate=[0, 2])
    for name, values in calm.isel(learning_rate=[0, 2]).data_vars.items():
        np.testing.assert_array_equal(beside[name], values, err_msg=name)
    for name in PARAMETERS:
        assert np.all(np.isfinite(mixed[name]))
    assert np.all(np.isnan(mixed["loss"].isel(learning_rate=1, step=-1)))


def test_settings_that_change_the_program_are_axes_too(data):
    fixed, rho = {"batch_size": 32, "learning_rate": 0.01}, [0.05, 0.1]
    made = sweep(data, seeds=2, d_hidden=[4, 6], rho=rho, steps=[50, 100], **fixed)
    assert list(made["loss"].dims) == ["d_hidden", "rho", "steps", "seed", "step"]
    assert made["eval_mean_activation"].isel(d_hidden=0).isnull().sum("unit").values.tolist() == [[[2, 2]] * 2] * 2
    assert made["loss"].sel(steps=50).notnull().sum("step").values.ravel().tolist() == [50] * 8
    alone = sweep(data, seeds=2, d_hidden=4, rho=rho, steps=100, **fixed)
    there = made.sel(d_hidden=4, steps=100)
    np.testing.assert_allclose(there["eval_reconstruction"], alone["eval_reconstruction"], rtol=1e-5)
    weight = there["encoder_weight"].values[..., :4, :]
    np.testing.assert_allclose(weight, alone["encoder_weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("tied", [False, True])
def test_every_activation_trains(data, activation, tied):
    made = sweep(
        data, **SETTINGS | {"activation": activation, "tied": tied, "beta": 0.01, "learning_rate": 0.01, "steps": 300}
    )
    assert float(made["loss"].isel(step=-1).squeeze()) < 0.8 * float(made["loss"].isel(step=0).squeeze())
    assert float(made["eval_explained_variance"].squeeze()) > 0.2
    if tied:
        np.testing.assert_array_equal(made["decoder_weight"].squeeze(), made["encoder_weight"].squeeze())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("estimator", ["ema", "batch"])
def test_optimizers_and_estimators_hold_the_mean_activation(data, optimizer, estimator):
    made = sweep(
        data,
        optimizer=optimizer,
        estimator=estimator,
        beta=5.0,
        rho=[0.1, 0.3],
        d_hidden=6,
        batch_size=32,
        steps=2000,
        learning_rate=0.003,
    )
    means = made["eval_mean_activation"].mean(("seed", "unit"))
    np.testing.assert_allclose(means, made["rho"], rtol=0.15)


def test_k_is_swept_in_one_program_and_a_lane_equals_its_solo_run(data):
    settings = SETTINGS | {"activation": "linear", "tied": True, "beta": 0.0, "learning_rate": 0.01, "seeds": 2}
    made = sweep(data, k=[0, 1, 3], **settings)
    np.testing.assert_allclose(made["eval_l0"], [[6, 6], [1, 1], [3, 3]])
    error = made["eval_reconstruction"].mean("seed").values
    assert error[0] < error[2] < error[1]
    alone = sweep(data, k=3, **settings)
    for name in ("loss", "eval_reconstruction", *PARAMETERS):
        np.testing.assert_allclose(alone[name], made[name].sel(k=3), rtol=1e-5, atol=1e-6, err_msg=name)
    with pytest.raises(UserError, match="k must be at most d_hidden: got 7 of 6"):
        sweep(data, k=[3, 7], **settings)
    with pytest.raises(UserError, match="k_start must be at least k, to which it falls: got 2 and k 3; use a larger"):
        sweep(data, k=[1, 3], k_start=[0, 2], **settings)


def test_early_stopping_is_per_lane(samples):
    few = as_data(samples[:60])
    made = sweep(
        few,
        d_hidden=30,
        batch_size=20,
        steps=3000,
        patience=75,
        beta=0.0,
        weight_decay=0.0,
        final_learning_rate=1.0,
        learning_rate=[1e-5, 0.02],
        beta_warmup=0.0,
    )
    stopped = made["stopped_at"].squeeze()
    assert stopped[0] == -1 and 0 < stopped[1] < 3000
    curve = made["loss"].isel(learning_rate=1).squeeze()
    np.testing.assert_array_equal(curve.notnull(), windows(3000) <= int(stopped[1]))


@pytest.mark.usefixtures("optimised")
def test_the_penalty_holds_the_mean_activation_near_rho_on_patches():
    made = sweep(DataConfig(samples=5000), rho=[0.05, 0.1], beta=[3.0, 6.0], seeds=2, steps=1000)
    means = made["eval_mean_activation"].mean("unit")
    assert float(np.abs(means / made["rho"] - 1).max()) < 0.15


def test_data_settings_are_axes_where_the_data_is_a_config():
    settings = {"d_hidden": 5, "batch_size": 50, "steps": 20}
    made = sweep(DataConfig(samples=200), dataset=["patches", "digits"], **settings)
    assert made["dataset"].values.tolist() == ["patches", "digits"]
    sides = sweep(DataConfig(samples=200), patch_size=[4, 8], **settings)
    assert sides["image_height"].values.tolist() == [4, 8]
    assert sides["decoder_bias"].notnull().sum("input").values.ravel().tolist() == [16, 64]


def test_full_batch_lbfgs_reaches_scipys_cost_from_the_same_start(data):
    settings = {"d_hidden": 6, "optimizer": "lbfgs", "estimator": "batch", "steps": 150, "beta": 0.3}
    settings |= {"reconstruction_loss": "half_squared_error", "weight_decay": 1e-3}
    made = sweep(data, seeds=2, rho=[0.05, 0.2], **settings)
    with jax.enable_x64(True):
        x = jnp.asarray(data.train, jnp.float64)
        for rho, seed in ((0.05, 0), (0.2, 1)):
            model = lane_settings(rho=rho, **settings).model
            start, rebuild = ravel_pytree(CLASSIC.init(keys_of(jax.random.key(seed)).init, 16, model))

            def objective(w, model=model, rebuild=rebuild):
                terms, _ = CLASSIC.loss(rebuild(w), None, Step(x, x), model)
                return functools.reduce(operator.add, terms.values())

            cost = jax.jit(jax.value_and_grad(objective))

            def double(w, cost=cost):
                value, gradient = cost(jnp.asarray(w))
                return float(value), np.asarray(gradient, np.float64)

            options = {"maxiter": 150, "maxfun": 1000}
            best = scipy.optimize.minimize(
                double, np.asarray(start, np.float64), jac=True, method="L-BFGS-B", options=options
            )
            ours = float(made["loss"].sel(rho=rho, seed=seed).isel(step=-1))
            assert ours == pytest.approx(best.fun, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 100_000}, "batch_size must be at most the number of training samples"),
        ({"dataset": "digits"}, "dataset is a setting of data that are prepared already"),
        ({"normalize": "unit"}, "normalize is a setting of data that are prepared already"),
        ({"devices": 99}, "devices must be at most"),
        ({"devices": -1}, "devices must be >= 0"),
    ],
)
def test_what_does_not_go_with_the_data_is_refused(data, settings, message):
    with pytest.raises(UserError, match=message):
        sweep(data, **SETTINGS | settings)


def test_a_sigmoid_output_refuses_what_it_cannot_reach(samples):
    with pytest.raises(UserError, match=r"output sigmoid needs data in \[0, 1\]"):
        sweep(3 * samples, **SETTINGS)
    made = sweep(3 * samples, output="linear", **SETTINGS)
    assert np.isfinite(made["eval_reconstruction"]).all()


def test_constant_data_is_refused():
    with pytest.raises(UserError, match="held-out samples must differ"):
        sweep(np.full((100, 4), 0.5), **SETTINGS)


def test_loss_and_patience_are_axes_too_and_labels_name_every_rule(data):
    axes = {"reconstruction_loss": ["squared_error", "bernoulli"], "activation": ["sigmoid", "relu"]}
    made = sweep(data, patience=2, **axes, **SETTINGS)
    assert made["loss"].dims == ("reconstruction_loss", "activation", "seed", "step")
    label = made["eval_l0"].attrs["long_name"]
    assert "code > 0.1 for sigmoid codes" in label and "code > 0 for relu codes" in label
    assert made["eval_reconstruction"].attrs["units"] == "squared input units per sample / nat"


def test_the_samples_own_settings_are_recorded(data):
    recorded = sweep(load(DataConfig(dataset="digits", data_seed=7)), **SETTINGS).coords
    assert (recorded["dataset"].item(), recorded["data_seed"].item()) == ("digits", 7)
    assert sweep(data, **SETTINGS)["dataset"].item() == "array"


def test_an_array_is_normalised_by_settings_beside_it(samples):
    beside = sweep(samples, normalize="standardize", heldout=0.2, output="linear", **SETTINGS)
    config = DataConfig(dataset="array", normalize="standardize", heldout=0.2)
    xr.testing.assert_identical(beside, sweep(as_data(samples, config), output="linear", **SETTINGS))
    with pytest.raises(
        UserError, match=r"patch_size is a setting of no array: got it beside samples; those of an array"
    ):
        sweep(samples, patch_size=4, **SETTINGS)

"""Applications on cases whose answer is known, and what they add to a Dataset."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from sklearn.metrics import label_ranking_average_precision_score

from sae_jax import DataConfig, UserError, as_data, sweep
from sae_jax.analysis.tasks import TASKS, Measurement, TaskConfig, apply, with_measurement
from sae_jax.analysis.tasks.inpainting import hole_of
from sae_jax.analysis.tasks.retrieval import average_precision

RNG = np.random.default_rng(0)
LINEAR = {"activation": "linear", "output": "linear", "steps": 1, "batch_size": 50}


def first_inputs(units, inputs=6):
    """An encoder whose first units are the inputs themselves, and whose others are silent: all are of one shape."""
    return np.diag(np.arange(inputs) < units).astype(np.float32)


def known(data, encoder, seeds=2):
    """A run of linear lanes, rho 0.1 and 0.2, whose encoder is replaced and whose decoder is its transpose."""
    run = sweep(data, seeds=seeds, rho=[0.1, 0.2], d_hidden=encoder.shape[1], **LINEAR)
    run["encoder_weight"][:] = encoder.T
    run["decoder_weight"][:] = encoder.T
    for name in ("encoder_bias", "decoder_bias"):
        run[name][:] = 0
    return run


def clusters(classes, inputs=6, of=200):
    """Samples around `classes` distant centres, and their labels."""
    labels = np.arange(of) % classes
    return np.eye(inputs)[labels] + RNG.normal(0, 0.05, (of, inputs)), labels


def test_a_probe_separates_clusters_and_cannot_separate_noise():
    samples, labels = clusters(4)
    data = as_data(samples, labels=labels)
    run = known(data, np.eye(6, dtype=np.float32))
    found, figure = apply("probe", run, data=data)
    assert found["probe_accuracy"].dims == ("rho", "seed") and np.all(found["probe_accuracy"] == 1)
    assert float(found["probe_accuracy_raw"]) == 1 and isinstance(figure, Figure)
    blind, _ = apply("probe", known(data, np.zeros((6, 6), np.float32)), data=data)
    assert np.all(blind["probe_accuracy"] < 0.6)


def test_an_anomaly_off_the_subspace_is_found_and_one_inside_is_not():
    inside = np.concatenate([RNG.normal(size=(300, 2)), np.zeros((300, 4))], axis=1)
    outside = np.concatenate([RNG.normal(size=(100, 2)), RNG.normal(3, 0.1, (100, 4))], axis=1)
    samples, labels = np.concatenate([inside, outside]), np.repeat([0, 1], [300, 100])
    data = as_data(samples, DataConfig(dataset="array", classes="0"), labels=labels)
    found, _ = apply("anomaly", known(data, first_inputs(2)), data=data)
    assert np.all(found["anomaly_auroc"] == 1) and np.all(found["anomaly_average_precision"] == 1)
    whole, _ = apply("anomaly", known(data, np.eye(6, dtype=np.float32)), data=data)
    np.testing.assert_allclose(whole["anomaly_auroc"], 0.5)


def test_denoising_by_the_identity_changes_nothing_and_by_a_projection_gains_what_it_removes():
    samples = np.concatenate([RNG.uniform(size=(4000, 1)), np.zeros((4000, 5))], axis=1)
    data = as_data(samples)
    options = TaskConfig(noise=(0.1, 0.2))
    same, _ = apply("denoising", known(data, np.eye(6, dtype=np.float32)), options, data)
    assert same["denoising_psnr"].dims == ("rho", "seed", "noise_level")
    assert same["noise_level"].values.tolist() == [0.1, 0.2]
    noisy = same["denoising_psnr_noisy"]
    np.testing.assert_allclose(noisy, -20 * np.log10(np.array([0.1, 0.2]) / np.ptp(data.train)), atol=0.2)
    np.testing.assert_allclose(same["denoising_psnr"], np.broadcast_to(noisy, (2, 2, 2)), rtol=1e-4)
    # One input of six is kept, with a sixth of the noise's energy.
    kept, _ = apply("denoising", known(data, first_inputs(1)), options, data)
    np.testing.assert_allclose(kept["denoising_psnr"] - noisy, 10 * np.log10(6), atol=0.5)


def test_inpainting_completes_what_the_subspace_determines():
    pattern = RNG.normal(size=64)
    amounts = RNG.normal(size=(300, 1))
    data = dataclasses.replace(as_data(amounts * pattern), image_shape=(8, 8))
    direction = np.outer(pattern / np.linalg.norm(pattern), np.arange(64) == 0).astype(np.float32)
    options = TaskConfig(hole=0.5, rounds=30)
    found, _ = apply("inpainting", known(data, direction), options, data)
    assert np.all(found["inpainting_psnr"] > found["inpainting_psnr_mean"] + 30)
    kept, _ = apply("inpainting", known(data, np.eye(64, dtype=np.float32)), options, data)
    np.testing.assert_allclose(kept["inpainting_psnr"], float(kept["inpainting_psnr_mean"]), rtol=1e-4)


def test_the_hole_is_a_centred_square():
    assert hole_of((8, 6), 0.5).reshape(8, 6)[2:5, 1:4].all() and hole_of((8, 6), 0.5).sum() == 9
    assert hole_of((8, 6), 0.01).sum() == 1


def test_retrieval_finds_the_own_cluster():
    samples, labels = clusters(4)
    data = as_data(samples, labels=labels)
    options = TaskConfig(neighbours=5)
    found, _ = apply("retrieval", known(data, np.eye(6, dtype=np.float32)), options, data)
    for name in ("map", "precision", "map_raw", "precision_raw"):
        np.testing.assert_allclose(found[f"retrieval_{name}"], 1, rtol=1e-6)
    blind, _ = apply("retrieval", known(data, np.diag(np.arange(6) == 5).astype(np.float32)), options, data)
    assert np.all(blind["retrieval_map"] < 0.5)


def test_average_precision_is_scikit_learns():
    scores, relevant = RNG.normal(size=(20, 50)), RNG.random((20, 50)) < 0.2
    ranked = np.take_along_axis(relevant, np.argsort(-scores, axis=1), axis=1)
    assert float(average_precision(jnp.asarray(ranked))) == pytest.approx(
        label_ranking_average_precision_score(relevant, scores), rel=1e-5
    )


@pytest.fixture(scope="module")
def digits_run():
    """A run over programs of different widths, with k swept inside each."""
    settings = {"activation": "relu", "output": "linear", "beta": 0.0, "k": [0, 3], "d_hidden": [8, 12]}
    data = DataConfig(dataset="digits", classes="0-5", samples=300)
    return sweep(data, seeds=2, steps=20, batch_size=50, **settings)


QUICK = TaskConfig(layers=(6,), iterations=30, fine_tuning=30, noise=(0.2,), rounds=2)


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_fills_every_lane_of_every_program(digits_run, task):
    found, figure = apply(task, digits_run, QUICK)
    assert len(figure.axes) > 1
    added = [name for name in found.data_vars if name not in digits_run]
    assert added and all(name.startswith(f"{task}_") for name in added)
    lanes = [name for name in added if "seed" in found[name].dims]
    assert lanes and all(found[name].dims[:3] == ("k", "d_hidden", "seed") for name in lanes)
    for name in added:
        assert np.all(np.isfinite(found[name])) and found[name].attrs["kind"] == "task"
        assert set(found[name].attrs) == {"long_name", "units", "kind"}
    for name in digits_run.data_vars:
        np.testing.assert_array_equal(found[name], digits_run[name])


def test_lanes_keep_their_places_and_a_second_time_replaces_the_first(digits_run):
    found, _ = apply("denoising", digits_run, QUICK)
    psnr = found["denoising_psnr"]
    assert len(np.unique(psnr.values)) == psnr.size
    there, _ = apply("denoising", digits_run.sel(k=[3], d_hidden=[12]), QUICK, devices=1)
    np.testing.assert_allclose(there["denoising_psnr"], psnr.sel(k=[3], d_hidden=[12]), rtol=1e-5)
    again, _ = apply("denoising", found, TaskConfig(noise=(0.1, 0.3)))
    assert set(again.data_vars) == set(found.data_vars) and again.sizes["noise_level"] == 2


@pytest.mark.parametrize("name", ["encoder_weight", "eval_l0", "loss", "d_hidden", "k", "step", "unit"])
def test_a_task_replaces_nothing_that_another_has_put_into_a_run(name, digits_run):
    mine = xr.Dataset({name: digits_run[name].variable})
    with pytest.raises(UserError, match=f"variables of tasks must be new to the run: got {name}, which it has"):
        with_measurement(digits_run, Measurement(mine, Figure()))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("probes", "unknown task probes: did you mean probe?"),
        ("probe", "task probe needs labelled samples: array has none"),
        ("retrieval", "task retrieval needs labelled samples"),
        ("stacked", "task stacked needs labelled samples"),
        ("anomaly", "task anomaly needs a run that left a class out"),
        ("inpainting", "task inpainting needs images"),
    ],
)
def test_what_a_task_lacks_is_named(task, message):
    data = as_data(RNG.uniform(size=(100, 6)))
    with pytest.raises(UserError, match=message):
        apply(task, known(data, np.eye(6, dtype=np.float32)), data=data)


@pytest.mark.parametrize("task", ["probe", "anomaly", "denoising", "retrieval"])
def test_a_diverged_lane_is_left_out_and_the_others_are_measured(task):
    settings = LINEAR | {"optimizer": "sgd", "d_hidden": 5, "steps": 50, "beta": 0.0, "learning_rate": [1e-3, 1e3]}
    wild = sweep(DataConfig(dataset="digits", classes="0-4"), **settings)
    assert np.all((wild["diverged_at"] >= 0) == (wild["learning_rate"] > 1))
    found, _ = apply(task, wild, QUICK)
    for name in set(found.data_vars) - set(wild.data_vars):
        if "seed" in found[name].dims:
            assert np.all(np.isfinite(found[name].sel(learning_rate=1e-3)))
            assert np.all(np.isnan(found[name].sel(learning_rate=1e3)))


def test_a_stack_of_another_family_is_refused():
    run = sweep(DataConfig(dataset="digits", samples=100), "topk", k=2, d_hidden=4, steps=1, batch_size=20)
    with pytest.raises(UserError, match=r"task stacked needs models with activation, .* as classic: got topk"):
        apply("stacked", run, QUICK)


def test_other_samples_than_those_of_the_training_are_refused(tmp_path):
    path = tmp_path / "samples.npy"
    np.save(path, RNG.uniform(size=(200, 6)))
    run = sweep(DataConfig(dataset=f"array:{path}"), d_hidden=6, **LINEAR)
    apply("denoising", run, QUICK)
    for width, message in (
        (6, "must hold the samples that the run was trained on: it has changed since; train again"),
        (4, "samples must have the 6 inputs that training began with: got 4; use samples of that width"),
        (9, "samples must have the 6 inputs that training began with: got 9; use samples of that width"),
    ):
        np.save(path, RNG.uniform(size=(200, width)))
        with pytest.raises(UserError, match=message):
            apply("denoising", run, QUICK)

"""Sweeps of dictionaries that make other activations of their inputs."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import sae_jax
from sae_jax import DataConfig, UserError, as_data, interop, sweep
from sae_jax.analysis import tasks, units
from sae_jax.storage import results
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps.merge import merge
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.recovery import Interrupted, saving, wait
from sae_jax.sweeps.sweep import train
from tests.parity.cases import D_IN, D_OUT, D_SAE, FIXTURES, TRANSCODERS
from tests.parity.test_parity import batches
from tests.watching import Watcher

FOLDERS = FIXTURES / "folders"
QUIET = {"progress": False, "devices": 1}
RNG = np.random.default_rng(0)
FEATURES = RNG.gamma(2.0, 0.7, size=(900, 20)) * (RNG.random((900, 20)) < 0.1)
X = (FEATURES @ RNG.normal(size=(20, 8)) + 1).astype(np.float32)
Y = (FEATURES @ RNG.normal(size=(20, 5)) - 3).astype(np.float32)
SHORT = {"d_hidden": 12, "steps": 60, "batch_size": 32, "learning_rate": 3e-3, "seeds": 2, "normalize": "standardize"}


@pytest.fixture
def shards(tmp_path):
    for name, values in (("x", X), ("y", Y)):
        (tmp_path / name).mkdir()
        for number, part in enumerate(np.split(values, 3)):
            save_file({"activations": part}, tmp_path / name / f"{number}.safetensors")
    return DataConfig(dataset=f"activations:{tmp_path / 'x'}", targets=str(tmp_path / "y"))


def explained(targets, made):
    return 1 - np.sum((targets - made) ** 2) / np.sum((targets - targets.mean(axis=0, dtype=float)) ** 2)


@pytest.mark.parametrize("model", ["relu", "batch_topk"])
def test_a_lane_makes_the_targets_that_its_run_measured(model, tmp_path):
    made = sweep(X, model, targets=Y, skip=[False, True], centre="mean", **SHORT, **QUIET)
    assert made["decoder_weight"].dims == ("skip", "seed", "unit", "target") and int(made["outputs"]) == 5
    assert made["encoder_weight"].shape[-2:] == (12, 8) and made["target"].size == 5
    assert made["target_centre"].shape[-1] == 5 and made["input_scale"].shape[-1] == 8
    results.save(made, tmp_path)
    run = sae_jax.open(tmp_path)
    held = as_data(np.arange(900)[:, None]).heldout.ravel().astype(int)
    for skip in (False, True):
        lane = run.lane(skip=skip, seed=1)
        assert (lane.d_in, lane.d_out, "skip_weight" in lane.params) == (8, 5, skip)
        part = made.sel(skip=skip)
        both = np.concatenate([part["input_centre"], part["target_centre"]])
        np.testing.assert_allclose(lane.normalisation.centre, both)
        scale = part["target_scale"].values
        value = explained(Y[held] / scale, lane.reconstruct(X[held]) / scale)
        np.testing.assert_allclose(float(part["eval_explained_variance"].sel(seed=1)), value, rtol=1e-4)
        lane.save(tmp_path / "lane.safetensors")
        back = sae_jax.load_lane(tmp_path / "lane.safetensors")
        np.testing.assert_array_equal(back.reconstruct(X), lane.reconstruct(X))


def test_the_decoder_starts_at_the_mean_of_the_targets():
    still = {"optimizer": "sgd", "learning_rate": 1e-12, "momentum": 0.0, "steps": 1, "normalize": "none"}
    made = sweep(X, "relu", targets=Y, centre="mean", **SHORT | still, **QUIET)
    mean = as_data(X, targets=Y).train[:, 8:].mean(axis=0)
    np.testing.assert_allclose(made["decoder_bias"].isel(seed=0), mean, rtol=1e-4)
    gamma = np.linalg.norm(Y.mean(axis=0)) / np.linalg.norm(Y.std(axis=0))
    np.testing.assert_allclose(made["input_gamma"], gamma, rtol=0.1)


def test_shards_are_trained_on_as_an_array_is_and_resumed_to_the_bit(shards, tmp_path):
    settings = SHORT | {"model": "topk", "k": 3.0, "steps": 400}
    del settings["seeds"]

    def trained(recovery=None):
        study = prepare(shards, seeds=2, engine=Engine(), observer=Watcher(), **settings)
        return train(study, Watcher(), in_memory(), recovery, watched=False)

    whole = trained()
    asked = iter([False, False, True])
    with saving(tmp_path, every=0.0, asked_to_end=lambda: next(asked, True)) as recovery:
        with pytest.raises(Interrupted):
            trained(recovery)
        wait(recovery)
    with saving(tmp_path) as recovery:
        assert recovery.state is not None and 0 < recovery.state[1].step < 400
        resumed = trained(recovery)
    for name, values in whole.data_vars.items():
        assert values.values.tobytes() == resumed[name].values.tobytes(), name
    assert (whole["eval_explained_variance"] > 0.3).all()


def test_split_batches_and_units_are_one_lane():
    settings = SHORT | {"model": "relu", "targets": Y, "skip": True, "seeds": 1, "progress": False}
    whole = sweep(X, devices=1, **settings)
    for split in ({"data_parallel": 2}, {"unit_parallel": 2}):
        parts = sweep(X, devices=2, **split, **settings)
        for name in ("decoder_weight", "skip_weight", "encoder_weight", "eval_explained_variance"):
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3, atol=2e-5)


def test_models_units_and_widths_of_targets_lie_side_by_side_and_are_merged(tmp_path):
    both = sweep(X, ["relu", "topk"], targets=Y, k=3.0, **SHORT | {"d_hidden": [6, 12]}, **QUIET)
    assert np.isfinite(both["eval_explained_variance"]).all()
    run = sae_jax.open(both)
    assert run.lane(model="relu", d_hidden=6, seed=0).params["decoder_weight"].shape == (6, 5)
    merged = merge(*(sweep(X, "relu", targets=Y, l1=l1, **SHORT, **QUIET) for l1 in (0.1, 0.5)))
    assert merged["decoder_weight"].dims[-1] == "target" and merged.sizes["l1"] == 2
    np.save(tmp_path / "x.npy", X)
    for name, values in (("narrow", Y[:, :2]), ("wide", Y)):
        np.save(tmp_path / f"{name}.npy", values)
    data = DataConfig(dataset=f"array:{tmp_path / 'x.npy'}")
    paths = [str(tmp_path / f"{name}.npy") for name in ("narrow", "wide")]
    with pytest.raises(UserError, match="targets must be of one width: got 2, 5; train them one by one"):
        sweep(data, "relu", targets=paths, **SHORT, **QUIET)
    made = sweep(data, "relu", targets=paths, outputs=[2, 5], zip=["targets", "outputs"], **SHORT, **QUIET)
    assert made.sizes["target"] == 5
    lane = sae_jax.open(made).lane(outputs=2, seed=0)
    assert lane.d_out == 2 and lane.normalisation.centre.shape == (10,)


def test_snapshots_compare_rows_of_the_targets():
    made = sweep(X, "relu", targets=Y, snapshots=3, **SHORT, **QUIET)
    assert np.isfinite(made["seed_consistency"]).all() and made.sizes["snapshot"] == 4


@pytest.mark.parametrize("name", TRANSCODERS)
def test_with_no_steps_a_folder_is_measured_and_trained_on_as_it_is(name, tmp_path):
    x = np.concatenate([*batches()]).astype(np.float32)
    y = (np.maximum(x @ RNG.normal(size=(D_IN, D_OUT)), 0)).astype(np.float32)
    lane = interop.load(FOLDERS / name)
    made = sweep(x, targets=y, start_from=FOLDERS / name, steps=0, **QUIET)
    held = as_data(x, targets=y).heldout
    inputs, targets = held[:, :D_IN], held[:, D_IN:]
    value = explained(targets, lane.reconstruct(inputs))
    np.testing.assert_allclose(float(made["eval_explained_variance"].squeeze()), value, rtol=1e-5)
    l0 = np.count_nonzero(lane.encode(inputs), axis=1).mean()
    np.testing.assert_allclose(float(made["eval_l0"].squeeze()), l0, rtol=1e-6)
    for parameter, array in lane.params.items():
        np.testing.assert_array_equal(made[parameter].squeeze("seed"), array)
    tuned = sweep(x, targets=y, start_from=FOLDERS / name, steps=60, learning_rate=1e-2, batch_size=32, **QUIET)
    assert float(tuned["eval_reconstruction"].squeeze()) < 0.9 * float(made["eval_reconstruction"].squeeze())
    interop.save(sae_jax.open(tuned).lane(), tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "cfg.json").read_text())["architecture"] == name
    back = interop.load(tmp_path / "tuned")
    np.testing.assert_allclose(back.reconstruct(x), sae_jax.open(tuned).lane().reconstruct(x), atol=1e-5)
    again = sweep(x, targets=y, start_from=tuned, steps=0, **QUIET)
    np.testing.assert_allclose(again["eval_reconstruction"], tuned["eval_reconstruction"], rtol=1e-6)
    assert lane.params["encoder_weight"].shape == (D_SAE, D_IN)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "classic"}, "targets need a model that makes them of its inputs: got classic, which reconstructs"),
        ({"model": ["relu", "classic"]}, "targets need a model that makes them of its inputs: got classic"),
        ({"model": "matching_pursuit"}, "matching_pursuit encodes with its decoder rows"),
        ({"outputs": 4}, "targets must have 4 numbers, as outputs says: got 5; use others"),
        ({"targets": Y[:9]}, "targets must have a row for each of the 900 samples, in their order: got 9 in targets"),
        ({"targets": None, "outputs": 5}, "a transcoder of 5 outputs needs targets: got samples alone; add targets"),
        ({"start_from": FOLDERS / "transcoder"}, "targets must have 4 numbers, as outputs says: got 5; use others"),
        ({"start_from": FOLDERS / "transcoder", "targets": None}, "a transcoder of 4 outputs needs targets"),
        ({"start_from": FOLDERS / "standard"}, "targets need a transcoder: got 5 numbers of them for a lane that"),
        (
            {"start_from": FOLDERS / "transcoder", "targets": Y[:, :4]},
            r"encoder_weight must be \[10, 6\], as it is there: got \[10, 8\] here; use the same d_hidden, and samples",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    given = {"targets": Y} | given
    given = {name: value for name, value in given.items() if value is not None}
    start = {} if "start_from" in given else {"model": "relu"}
    with pytest.raises(UserError, match=message):
        sweep(X, **start | given, steps=5, batch_size=32, **QUIET)


def test_a_stream_has_no_targets():
    with pytest.raises(UserError, match="targets is a setting of no stream: got it beside samples"):
        sweep(lambda step: X[:32], "relu", targets=Y, steps=5, batch_size=32, **QUIET)


def test_tasks_of_autoencoders_are_refused(shards):
    made = sweep(shards, "relu", **SHORT, **QUIET)
    with pytest.raises(UserError, match="task denoising is of autoencoders, which reconstruct their samples: got"):
        tasks.apply("denoising", made)


def test_units_are_read_by_their_inputs(shards):
    made = sweep(shards, "relu", **SHORT, **QUIET)
    assert np.isfinite(units.measure(made).variables[units.DENSITY]).all()

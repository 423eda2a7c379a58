"""A sweep on samples of known features says of every lane how much of them it has found."""

import io

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import sae_jax
from sae_jax import DataConfig, load
from sae_jax.analysis.report import print_table
from sae_jax.analysis.summary import lane_rows
from sae_jax.storage import results
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.recovery import Interrupted, saving
from sae_jax.sweeps.sweep import train
from sae_jax.training.config import lane_settings
from sae_jax.training.truth import MEASURES, lane_against_truth

PLAIN = "superposition:features=8,inputs=6,p=.2"
TREE = f"{PLAIN},roots=1,branching=2,depth=1"
SHORT = {"d_hidden": 8, "batch_size": 64, "steps": 40, "learning_rate": 0.01}
OF_NO_TREE = {name for name in MEASURES if name != "truth_absorption"}


def data(name=PLAIN):
    return DataConfig(dataset=name, samples=900)


@pytest.fixture(scope="module")
def dataset():
    return sae_jax.sweep(data(), "relu", l1=[0.05, 0.2], seeds=2, **SHORT)


def test_every_lane_has_the_measures_of_its_own_parameters(dataset):
    loaded, names = load(data()), ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
    assert set(dataset.data_vars) >= OF_NO_TREE and "truth_absorption" not in dataset
    for l1, seed in ((0.05, 1), (0.2, 0)):
        lane = dataset.sel(l1=l1, seed=seed)
        params = {name: lane[name].values for name in names}
        expected = lane_against_truth(params, loaded.heldout, lane_settings("relu", l1=l1, **SHORT), loaded.truth)
        for name in OF_NO_TREE:
            assert float(lane[name]) == pytest.approx(expected[name], rel=1e-5), name
    assert len(np.unique(dataset["truth_mcc"])) == 4


def test_they_are_measures_with_labels_and_units_over_the_lanes(dataset):
    for name in OF_NO_TREE:
        one = dataset[name]
        assert one.dims == ("l1", "seed") and one.dtype == np.float32
        assert one.attrs == {"long_name": MEASURES[name].label, "units": "1", "kind": "measure"}


def test_they_are_in_the_files_and_in_the_table(dataset, tmp_path):
    results.save(dataset, tmp_path)
    stored = results.load(tmp_path)
    for name in OF_NO_TREE:
        xr.testing.assert_equal(stored[name], dataset[name])
    assert set(lane_rows(stored).columns) >= OF_NO_TREE
    console = Console(width=200, file=io.StringIO())
    print_table(console, stored)
    heading = " ".join(console.file.getvalue().split())
    assert all(word in heading for word in ("MCC", "MMCS", "F1", "uniqueness", "shrinkage"))


def test_the_best_lane_has_the_highest_mcc_and_the_least_absorption():
    tree = sae_jax.sweep(data(TREE), "relu", l1=[0.05, 0.4], seeds=1, **SHORT)
    tree["truth_absorption"][:] = [[0.3], [0.1]]
    tree["truth_mcc"][:] = [[0.3], [0.1]]
    run = sae_jax.open(tree)
    assert run.best("truth_mcc").point["l1"] == 0.05 and run.best("truth_absorption").point["l1"] == 0.4


def test_programs_with_and_without_a_truth_or_a_hierarchy_stand_side_by_side():
    both = sae_jax.sweep(
        DataConfig(samples=900), "relu", dataset=[PLAIN, TREE, "digits"], normalize="none", l1=0.1, **SHORT
    )
    known = both["truth_mcc"].notnull().squeeze("seed")
    assert known.values.tolist() == [True, True, False]
    assert both["truth_absorption"].notnull().squeeze("seed").values.tolist() == [False, True, False]


def test_lanes_that_diverge_have_no_truth():
    found = sae_jax.sweep(data(), "relu", l1=0.1, **SHORT | {"learning_rate": [0.01, 1e38]})
    assert np.all(found["diverged_at"].sel(learning_rate=1e38) >= 0)
    for name in OF_NO_TREE:
        assert np.isnan(found[name].sel(learning_rate=1e38)).all() and np.isfinite(found[name][0]).all(), name


@pytest.mark.parametrize("model", sorted(sae_jax.models.MODELS))
def test_every_model_is_compared(model):
    outputs = {"output": "linear", "activation": "relu", "beta": 0.0} if model == "classic" else {}
    found = sae_jax.sweep(data(TREE), model, seeds=1, **SHORT | outputs)
    assert all(np.isfinite(found[name]).all() for name in ("truth_mcc", "truth_f1", "truth_uniqueness"))


def test_a_resumed_and_an_extended_sweep_find_the_same_to_the_bit(dataset, tmp_path):
    settings = {"seeds": 2, "l1": [0.05, 0.2], "engine": Engine(devices=1, lanes_per_chunk=2), "observer": Observer()}
    study = prepare(data(), "relu", **settings, **SHORT)
    whole, left = train(study, Observer(), in_memory()), 60

    def asked():
        nonlocal left
        left -= 1
        return left % 25 == 0

    for _ in range(20):
        try:
            with saving(tmp_path, every=0.0, asked_to_end=asked) as recovery:
                resumed = train(study, Observer(), in_memory(), recovery)
            break
        except Interrupted:
            continue
    xr.testing.assert_identical(resumed, whole)
    larger = sae_jax.extend(dataset, l1=[0.05, 0.1, 0.2])
    for name in OF_NO_TREE:
        np.testing.assert_array_equal(larger[name].sel(l1=[0.05, 0.2]), dataset[name])
        assert np.isfinite(larger[name]).all()


def test_features_are_found():
    """A ReLU dictionary recovers most of the features in a second of training."""
    found = sae_jax.sweep(data(), "relu", l1=0.3, **SHORT | {"d_hidden": 8, "steps": 1500, "batch_size": 128})
    assert float(found["truth_mcc"].squeeze()) > 0.9 and float(found["truth_f1"].squeeze()) > 0.8
    assert 0.6 < float(found["truth_shrinkage"].squeeze()) < 0.95

"""A run of format 1, which the version before this format wrote: tests/storage/runs/format1."""

import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from safetensors.numpy import load_file

import sae_jax
from sae_jax import DataConfig, UserError, evaluate
from sae_jax import load as load_samples
from sae_jax.analysis.figures import save_all
from sae_jax.analysis.lanes import trained
from sae_jax.analysis.report import print_table
from sae_jax.analysis.tasks import TaskConfig, apply
from sae_jax.settings import settings_of
from sae_jax.storage.results import PARAMS_FILE, RESULTS_FILE, load, save, save_measures
from sae_jax.sweeps.lane_warnings import warnings_of
from sae_jax.sweeps.reading import grid_of
from sae_jax.training.config import TrainingSettings

matplotlib.use("Agg")
RUN = Path(__file__).parent / "runs" / "format1"
LANES = ("rho", "activation", "seed")


@pytest.fixture(scope="module")
def dataset():
    return load(RUN)


def test_it_opens_as_todays_format(dataset, tmp_path):
    assert dataset.attrs["format"] == 2 and json.loads(dataset.attrs["axes"]) == ["rho", "activation"]
    kinds = {}
    for name, variable in dataset.data_vars.items():
        kinds.setdefault(variable.attrs["kind"], set()).add(name)
    assert kinds["curve"] == {"loss", "loss_reconstruction", "loss_kl"}
    assert kinds["parameter"] == {"encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"}
    assert kinds["status"] == {"diverged_at", "stopped_at", "image_height", "image_width"}
    assert len(kinds["measure"]) == 6 and all(name.startswith("eval_") for name in kinds["measure"])
    save(dataset, tmp_path)
    xr.testing.assert_identical(load(tmp_path), dataset)


def test_its_numbers_are_those_of_the_files(dataset):
    tensors = load_file(RUN / PARAMS_FILE)
    assert dataset["encoder_weight"].dims == (*LANES, "unit", "input")
    np.testing.assert_array_equal(dataset["encoder_weight"], np.swapaxes(tensors["encoder_weight"], -1, -2))
    for name in ("encoder_bias", "decoder_weight", "decoder_bias"):
        np.testing.assert_array_equal(dataset[name], tensors[name])
    with xr.open_dataset(RUN / RESULTS_FILE, engine="h5netcdf") as stored:
        for old, new in (("reconstruction", "loss_reconstruction"), ("penalty", "loss_kl"), ("loss", "loss")):
            np.testing.assert_array_equal(dataset[new], stored[old])


def test_its_lanes_measure_what_they_measured_when_they_were_trained(dataset):
    samples = load_samples(DataConfig(dataset="digits", classes="0-8"))
    for lanes in trained(dataset, samples):
        measured = lanes.map(lambda lane, x: evaluate(lane.params, x, lane.settings), samples.heldout)
        stored = dataset.sel(lanes.point)
        np.testing.assert_allclose(
            measured["explained_variance"], stored["eval_explained_variance"].values.ravel(), rtol=1e-4
        )


def test_it_is_drawn_and_printed(dataset, tmp_path):
    assert {path.stem for path in save_all(dataset, tmp_path)} == {
        *("curves", "filters_best", "filters", "mean_activation", "heatmaps", "frontier")
    }
    console = Console(width=120, record=True)
    print_table(console, dataset)
    assert any(line.split()[:1] == ["0.05"] for line in console.export_text().splitlines())
    assert isinstance(warnings_of(dataset), list)


def test_a_task_is_added_beside_parameters_that_stay_as_they_are(dataset, tmp_path):
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    with_task, _ = apply("anomaly", load(run), TaskConfig())
    save_measures(with_task, run)
    again = load(run)
    xr.testing.assert_identical(again, with_task)
    assert (run / PARAMS_FILE).read_bytes() == (RUN / PARAMS_FILE).read_bytes()
    assert {variable.attrs["kind"] for name, variable in again.data_vars.items() if name.startswith("anomaly_")} == {
        "task"
    }


@pytest.mark.parametrize(
    ("absent", "figures"),
    [
        # Explained variance stands for the error, and L0 for the activation.
        (["eval_reconstruction"], {"curves", "filters_best", "filters", "mean_activation", "heatmaps", "frontier"}),
        (["eval_explained_variance"], {"curves", "filters_best", "filters", "mean_activation", "heatmaps", "frontier"}),
        (["eval_mean_activation"], {"curves", "filters_best", "filters", "heatmaps", "frontier"}),
        (["eval_mean_activation", "eval_l0"], {"curves", "filters_best", "filters", "heatmaps"}),
        (
            ["eval_dead_fraction", "image_height"],
            {"curves", "cosines", "mean_activation", "heatmaps", "frontier"},
        ),
        (["eval_max_activation"], {"curves", "filters_best", "filters", "mean_activation", "heatmaps", "frontier"}),
        (["decoder_weight"], {"curves", "mean_activation", "heatmaps", "frontier"}),
        (
            ["loss", "loss_reconstruction", "loss_kl"],
            {"filters_best", "filters", "mean_activation", "heatmaps", "frontier"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_absent_is_not_drawn_or_printed(absent, figures, dataset, tmp_path):
    fewer = dataset.drop_vars(absent)
    assert {path.stem for path in save_all(fewer, tmp_path)} == figures
    console = Console(width=120, record=True)
    print_table(console, fewer)
    assert ("variance" in console.export_text()) == ("eval_explained_variance" in fewer)
    assert isinstance(warnings_of(fewer), list)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_what_an_optimizer_did_before_there_was_a_setting_of_it_is_known_of_that_one_alone(optimizer, dataset):
    older = dataset.assign_coords(optimizer=optimizer, estimator="batch")
    default = settings_of(TrainingSettings)["history_size"].default
    assert grid_of(older).fixed["history_size"] == {"adam": default, "lbfgs": 10}[optimizer]
    assert default != 10


def test_its_lanes_are_opened_but_where_their_normalisation_would_be_needed():
    dataset = load(RUN)
    lane = sae_jax.open(RUN).best()
    assert lane.encode(np.zeros((3, dataset.sizes["input"]))).shape == (3, lane.d_hidden)
    unknown = dataset.assign_coords(normalize="unit")
    with pytest.raises(UserError, match="must hold the normalisation of its samples"):
        sae_jax.open(unknown).best()
    with pytest.raises(UserError, match="must hold the normalisation of its samples"):
        sae_jax.open(dataset.assign_coords(dataset="patches")).best()

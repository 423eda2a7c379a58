"""A run's files."""

import json

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file

from sae_jax import Config, UserError, sweep
from sae_jax.results import PARAMETERS, check_free, load, save


@pytest.fixture(scope="module")
def dataset(samples):
    config = Config(d_hidden=4, batch_size=32, steps=30)
    return sweep(config, samples, seeds=2, tied=[False, True], rho=[0.05, 0.1], activation=["sigmoid", "relu"])


def test_what_was_saved_is_what_is_loaded(dataset, tmp_path):
    save(dataset, tmp_path / "new" / "run", "python -m somewhere")
    back = load(tmp_path / "new" / "run")
    xr.testing.assert_identical(back, dataset)
    assert back["activation"].values.tolist() == ["sigmoid", "relu"]
    assert back["tied"].values.tolist() == [False, True]
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == [
        "config.json",
        "params.safetensors",
        "results.nc",
    ]


def test_parameters_have_the_sweeps_axes_in_front(dataset, tmp_path):
    save(dataset, tmp_path, "")
    tensors = load_file(tmp_path / "params.safetensors")
    assert set(tensors) == set(PARAMETERS)
    assert tensors["encoder_weight"].shape == (2, 2, 2, 2, 16, 4) and tensors["encoder_weight"].dtype == np.float32
    assert tensors["decoder_weight"].shape == (2, 2, 2, 2, 4, 16)
    np.testing.assert_array_equal(tensors["decoder_weight"][1, 0, 0, 0], tensors["encoder_weight"][1, 0, 0, 0].T)
    with xr.open_dataset(tmp_path / "results.nc", engine="h5netcdf") as stored:
        assert not set(stored.data_vars) & set(PARAMETERS)
        assert stored["loss"].dims == ("tied", "rho", "activation", "seed", "step")


def test_config_json_holds_settings_versions_and_the_command(dataset, tmp_path):
    save(dataset, tmp_path, "python -m somewhere --rho .05 .1")
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["command"] == "python -m somewhere --rho .05 .1"
    assert content["settings"]["rho"] == [0.05, 0.1] and content["settings"]["seeds"] == [0, 1]
    assert content["settings"]["d_hidden"] == 4 and content["settings"]["clip_norm"] == 0
    assert {"python", "jax", "optax", "flax"} <= set(content["versions"])
    assert json.loads(dataset.attrs["config"]) == content["settings"]


def test_a_folder_that_holds_something_is_not_free(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "missing")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="must be new or empty"):
        check_free(tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "run" / "deeper"):
        with pytest.raises(UserError, match="must be writable"):
            check_free(folder)


def test_a_folder_that_cannot_be_made_is_refused(dataset, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="must be writable"):
        save(dataset, tmp_path / "file" / "run", "")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must hold results\.nc"):
        load(tmp_path)

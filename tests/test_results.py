"""A run's files."""

import json

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file

from sae_jax import Config, UserError, arrays, results, sweep
from sae_jax.labelled import PARAMETERS
from sae_jax.results import check_free, claim, load, save


@pytest.fixture(scope="module")
def dataset(samples):
    config = Config(d_hidden=4, batch_size=32, steps=30)
    return sweep(config, samples, seeds=2, tied=[False, True], rho=[0.05, 0.1], activation=["sigmoid", "relu"])


def test_what_was_saved_is_what_is_loaded(dataset, tmp_path):
    (tmp_path / "new").mkdir()
    save(dataset, tmp_path / "new")
    back = load(tmp_path / "new")
    xr.testing.assert_identical(back, dataset)
    assert back["activation"].values.tolist() == ["sigmoid", "relu"]
    assert back["tied"].values.tolist() == [False, True]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "params.safetensors",
        "results.nc",
    ]


def test_variables_larger_than_a_piece_are_written_piece_by_piece(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", 100)
    monkeypatch.setattr(results, "PIECE_BYTES", 100)
    save(dataset, tmp_path)
    xr.testing.assert_identical(load(tmp_path), dataset)


def test_parameters_have_the_sweeps_axes_in_front(dataset, tmp_path):
    save(dataset, tmp_path)
    tensors = load_file(tmp_path / "params.safetensors")
    assert set(tensors) == set(PARAMETERS)
    assert tensors["encoder_weight"].shape == (2, 2, 2, 2, 16, 4) and tensors["encoder_weight"].dtype == np.float32
    assert tensors["decoder_weight"].shape == (2, 2, 2, 2, 4, 16)
    np.testing.assert_array_equal(tensors["decoder_weight"][1, 0, 0, 0], tensors["encoder_weight"][1, 0, 0, 0].T)
    with xr.open_dataset(tmp_path / "results.nc", engine="h5netcdf") as stored:
        assert not set(stored.data_vars) & set(PARAMETERS)
        assert stored["loss"].dims == ("tied", "rho", "activation", "seed", "step")


def test_config_json_holds_settings_versions_and_the_command(dataset, tmp_path):
    settings = json.loads(dataset.attrs["config"])
    with claim(tmp_path / "run", settings, "python -m somewhere --rho .05 .1", {"devices": 2}):
        save(dataset, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["command"] == "python -m somewhere --rho .05 .1" and content["run"] == {"devices": 2}
    assert content["settings"]["rho"] == [0.05, 0.1] and content["settings"]["seeds"] == [0, 1]
    assert content["settings"]["d_hidden"] == 4 and content["settings"]["clip_norm"] == 0
    assert {"python", "jax", "optax", "flax", "h5netcdf"} <= set(content["versions"])


def test_a_folder_that_holds_something_is_not_free(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "missing")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="must be new or empty"):
            check_free(folder)
    with pytest.raises(UserError, match=r"must be writable: got .*: .*file is a file"):
        check_free(tmp_path / "file" / "run" / "deeper")
    with pytest.raises(UserError, match=r"must be writable: got .*: File name too long"):
        check_free(tmp_path / ("n" * 300))


def test_of_two_runs_that_claim_one_folder_the_second_is_refused(tmp_path):
    with claim(tmp_path / "run", {}, "first", {}):
        with pytest.raises(UserError, match="must be new or empty"), claim(tmp_path / "run", {}, "second", {}):
            pass
        (tmp_path / "run" / "results.nc").touch()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["command"] == "first"


def test_a_run_that_fails_before_it_has_results_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(tmp_path / "run", {}, "", {}):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_is_refused_and_leaves_nothing_half_written(dataset, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"must be writable: got .*: No space left on device"):
        save(dataset, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must hold results\.nc"):
        load(tmp_path)

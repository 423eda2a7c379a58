"""A run's files."""

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file

from sae_jax import Config, UserError, sweep
from sae_jax.storage import arrays, results
from sae_jax.storage.results import load, save
from sae_jax.sweeps.dataset import PARAMETERS


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
    assert tensors["encoder_weight"].shape == (2, 2, 2, 2, 4, 16) and tensors["encoder_weight"].dtype == np.float32
    assert tensors["decoder_weight"].shape == (2, 2, 2, 2, 4, 16)
    np.testing.assert_array_equal(tensors["decoder_weight"][1, 0, 0, 0], tensors["encoder_weight"][1, 0, 0, 0])
    with xr.open_dataset(tmp_path / "results.nc", engine="h5netcdf") as stored:
        assert not set(stored.data_vars) & set(PARAMETERS)
        assert stored["loss"].dims == ("tied", "rho", "activation", "seed", "step")


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

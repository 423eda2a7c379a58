"""Batches split over devices: a mesh of any shape trains what one device does."""

import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from sae_jax import UserError, sweep

# Lanes x batch, on eight devices.
MESHES = ["1x1", "8x1", "1x2", "4x2", "2x4", "1x8"]
EVERY_MESH = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from sae_jax import sweep
samples, folder, *meshes = sys.argv[1:]
settings = dict(d_hidden=6, batch_size=32, steps=60, corruption="gaussian")
settings |= dict(rho=[0.05, 0.2], beta=[0.5, 2.0], noise=[0.1], learning_rate=0.01, seeds=2)
patient = dict(estimator="batch", reconstruction_loss="bernoulli", patience=2, learning_rate=0.05, steps=200)
# At a rate near 0, the last held-out losses would be equal but for the rounding of sums over devices.
patient |= dict(final_learning_rate=0.5)
for mesh in meshes:
    lanes, batch = map(int, mesh.split("x"))
    how = dict(devices=lanes * batch, data_parallel=batch)
    sweep(np.load(samples), **settings, **how).to_netcdf(f"{folder}/{mesh}.nc", engine="h5netcdf")
    if mesh in ("1x1", "2x4"):
        made = sweep(np.load(samples), **settings | patient, **how)
        made.to_netcdf(f"{folder}/{mesh}-patient.nc", engine="h5netcdf")
"""


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    """Sweeps of the same lanes over meshes of eight virtual devices, which take a process of their own."""
    folder = tmp_path_factory.mktemp("meshes")
    np.save(folder / "samples.npy", samples)
    words = [sys.executable, "-c", EVERY_MESH, folder / "samples.npy", folder, *MESHES]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path.stem: xr.load_dataset(path, engine="h5netcdf") for path in folder.glob("*.nc")}


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_every_mesh_trains_what_one_device_does(trained, mesh):
    for name, values in trained["1x1"].data_vars.items():
        np.testing.assert_allclose(trained[mesh][name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_early_stopping_stops_where_one_device_does(trained):
    alone, split = trained["1x1-patient"], trained["2x4-patient"]
    assert bool((alone["stopped_at"] > 0).any())
    for name, values in alone.data_vars.items():
        np.testing.assert_allclose(split[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 33, "data_parallel": 2}, "multiple of data_parallel: got 33 and 2; use batch_size 34"),
        ({"devices": 4, "data_parallel": 3}, "devices must be a multiple of data_parallel: got 4 and 3; .* devices 6"),
        ({"optimizer": "lbfgs", "estimator": "batch", "data_parallel": 2}, "data_parallel must be 1 for optimizer lbf"),
        ({"data_parallel": 0}, "data_parallel must be >= 1: got 0"),
    ],
)
def test_batches_that_cannot_be_split_are_refused(samples, settings, message):
    with pytest.raises(UserError, match=message):
        sweep(samples, **{"d_hidden": 6, "steps": 60} | settings)

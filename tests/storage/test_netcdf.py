"""netCDF files, read as xarray's own reader reads them."""

import warnings

import h5py
import numpy as np
import pytest
import xarray as xr

from sae_jax.storage import netcdf
from sae_jax.storage.netcdf import read_netcdf, write_netcdf


def test_a_file_is_read_as_xarray_reads_it(tmp_path):
    whole = xr.Dataset(
        {
            "loss": (
                ("model", "step"),
                np.array([[1, np.nan], [2, 3]], np.float32),
                {"units": "nat", "places": [1, 2]},
            ),
            "stopped": ("model", [True, False], {"of": ["a", "ä"], "one": ["a"], "none": "", "number": np.int64(3)}),
            "rows": (("unit", "other"), np.zeros((0, 3), np.int32)),
            "name": ((), "ä"),
        },
        {"model": ["relu", "topk"], "step": [10, 20], "width": ("model", [4, 5]), "seed": 7, "k": ("step", [0.5, 1])},
        {"config": "{}", "axes": ["model"], "version": 2},
    )
    write_netcdf(whole, tmp_path / "results.nc")
    found = read_netcdf(tmp_path / "results.nc")
    expected = xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf", decode_times=False).drop_encoding()
    xr.testing.assert_identical(found, expected)
    assert list(found.variables) == list(expected.variables) and set(found.coords) == set(whole.coords)
    for name, one in expected.variables.items():
        assert (type(found.variables[name]), found[name].dtype) == (type(one), one.dtype)
        assert {key: type(value) for key, value in found[name].attrs.items()} == {
            k: type(v) for k, v in one.attrs.items()
        }
    assert {key: type(value) for key, value in found.attrs.items()} == {k: type(v) for k, v in expected.attrs.items()}


MASKS = [
    ("step", {"_FillValue": 1, "missing_value": 2}, "step has several values that stand for missing ones"),
    ("loss", {"missing_value": np.array([1.0, 2.0])}, "loss has several values that stand for missing ones"),
    ("step", {"missing_value": np.nan}, "step of whole numbers has a value for missing ones that is none"),
    ("loss", {"_Unsigned": "true"}, "loss is called unsigned, and is of float32"),
]


@pytest.mark.parametrize(
    ("name", "attributes", "message"), MASKS, ids=[f"{name} {next(iter(a))}" for name, a, _ in MASKS]
)
def test_what_xarray_warns_of_is_refused(name, attributes, message, tmp_path):
    whole = xr.Dataset({"loss": ("step", np.zeros(2, np.float32)), "step": [10, 20]})
    write_netcdf(whole, tmp_path / "results.nc")
    with h5py.File(tmp_path / "results.nc", "a") as file:
        file[name].attrs.pop("_FillValue", None)
        file[name].attrs.update(attributes)
    with pytest.warns(xr.SerializationWarning):
        xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=f"^{message}$"):
        read_netcdf(tmp_path / "results.nc")


def test_a_file_is_read_under_the_filters_of_warnings_that_other_threads_have(tmp_path, monkeypatch):
    write_netcdf(xr.Dataset({"loss": ("step", np.zeros(2))}), tmp_path / "results.nc")
    before, meanwhile = list(warnings.filters), []
    monkeypatch.setattr(netcdf, "available_memory", lambda: meanwhile.append(list(warnings.filters)) or 2**40)
    read_netcdf(tmp_path / "results.nc")
    assert meanwhile == [before]

"""netCDF files, read as xarray's own reader reads them."""

import numpy as np
import xarray as xr

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

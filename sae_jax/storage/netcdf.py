"""A Dataset <-> a netCDF file, checked before anything in it is believed: it may be damaged or hostile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from sae_jax.storage.arrays import PIECE_BYTES, pieces
from sae_jax.storage.memory import available_memory

# More than HDF5 writes about one variable.
HEADER_BYTES = 2**16
# What HDF5 and netCDF note of dimensions.
OF_DIMENSIONS = frozenset(
    {"REFERENCE_LIST", "CLASS", "DIMENSION_LIST", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_NCProperties"}
)
FILLS = ("missing_value", "_FillValue")
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a Dataset; numbers larger than PIECE_BYTES piece by piece, where xarray would hold all of them.

    Raises:
        OSError: the file cannot be written, or the disk has no room for it.
    """
    numbers = {name: values for name, values in dataset.data_vars.items() if values.dtype.kind not in "OU"}
    large = [name for name, values in numbers.items() if values.nbytes > PIECE_BYTES]
    # HDF5 may crash the process where it fills a disk: it writes to memory, and to room that has been set aside.
    # Released at once, errors included: Python complains of a buffer that goes before its views do.
    with dataset.drop_vars(large).to_netcdf(engine="h5netcdf") as content, path.open("wb") as stream:
        stream.write(content)
    if large:
        _reserve(path, sum(dataset[name].nbytes + HEADER_BYTES for name in large))
        with h5netcdf.File(path, "a") as file:
            for name in large:
                _append(file, str(name), dataset[name])


def _reserve(path: Path, size: int) -> None:
    """Set room aside behind a file's end; HDF5 gives back what it does not need.

    Raises:
        OSError: there is no such room.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), path.stat().st_size, size)


def _append(file: h5netcdf.File, name: str, variable: xr.DataArray) -> None:
    for dim, size in variable.sizes.items():
        if dim not in file.dimensions:
            file.dimensions[str(dim)] = size
    stored = file.create_variable(name, tuple(map(str, variable.dims)), variable.dtype)
    stored.attrs.update(variable.attrs)
    for index, part in pieces(variable.values):
        stored[index] = part


def read_netcdf(path: Path) -> xr.Dataset:
    """The Dataset in a file; nothing outside the file is opened for it, and it must fit in memory.

    Raises:
        Exception: of whatever kind, it is not what netCDF writes.
    """
    with h5py.File(path, "r") as file:
        _check_sums(file)
        stored = {name: _plain_variable(file, name) for name in file}
        needed = sum(variable.nbytes for variable in stored.values())
        available = available_memory()
        if needed > available:
            raise MemoryError(f"{needed / 2**20:,.0f} MiB where {available / 2**20:,.0f} MiB of memory are free")
        variables = {
            name: _read(variable)
            for name, variable in stored.items()
            if not bytes(variable.attrs.get("NAME", b"")).startswith(NO_VARIABLE)
        }
        decoded, attributes, coordinates = xr.conventions.decode_cf_variables(
            variables, _attributes(file), decode_times=False
        )
    dataset = xr.Dataset(decoded, attrs=attributes)
    # How it was stored is not how it will be.
    return dataset.set_coords([name for name in decoded if name in coordinates]).load().drop_encoding()


def _read(variable: h5py.Dataset) -> xr.Variable:
    """A variable as it is stored; xarray's own reader looks each up anew for everything that it asks of it."""
    if "DIMENSION_LIST" in variable.attrs:
        dims = [variable.file[scales[-1]].name.lstrip("/") for scales in variable.attrs["DIMENSION_LIST"]]
    else:
        dims = [variable.name.lstrip("/")] * variable.ndim
    is_text = h5py.check_string_dtype(variable.dtype) is not None and variable.dtype.kind == "O"
    values = variable.asstr()[()] if is_text else variable[()]
    attributes = _attributes(variable)
    _check_masks(variable, attributes)
    return xr.Variable(dims, values, attributes, {"dtype": str if is_text else variable.dtype})


def _check_masks(variable: h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Refuse what xarray only warns of: it writes no such thing itself, and filters of warnings are of all threads."""
    name, fills = variable.name.lstrip("/"), {key: np.ravel(attributes[key]) for key in FILLS if key in attributes}
    filled = {key: {one for one in values.tolist() if one == one} for key, values in fills.items()}
    if len(set().union(*filled.values())) > 1:
        raise ValueError(f"{name} has several values that stand for missing ones")
    if variable.dtype.kind in "iu" and not all(filled.values()):
        raise ValueError(f"{name} of whole numbers has a value for missing ones that is none")
    if "_Unsigned" in attributes and variable.dtype.kind not in "iu":
        raise ValueError(f"{name} is called unsigned, and is of {variable.dtype}")


def _attributes(item: h5py.File | h5py.Dataset) -> dict[str, Any]:
    """What is noted of a file or of a variable: text, a number, or several of either."""
    return {name: _attribute(item.attrs[name]) for name in item.attrs if name not in OF_DIMENSIONS}


def _attribute(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return "" if value.dtype.kind in "SO" else np.array([], value.dtype)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [_attribute(one) for one in value.flat]
    return value.decode() if isinstance(value, bytes) else value


def _plain_variable(file: h5py.File, name: str) -> h5py.Dataset:
    """A variable whose numbers lie in the file itself; HDF5 knows some whose numbers are taken from other files."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} points to another place")
    variable = file[name]
    if not isinstance(variable, h5py.Dataset):
        raise ValueError(f"{name} is no variable")
    _check_sums(variable)
    if variable.external or variable.is_virtual:
        raise ValueError(f"{name} is kept in another file")
    if variable.dtype.kind not in "fiubSU" and h5py.check_string_dtype(variable.dtype) is None:
        raise ValueError(f"{name} is of {variable.dtype}, neither numbers nor text")
    return variable


def _check_sums(item: h5py.File | h5py.Dataset) -> None:
    """Refuse what is described in the oldest of HDF5's ways, without checksums: damaged, it may crash the library."""
    if h5py.h5o.get_info(item.id).hdr.version < 2:
        raise ValueError(f"{item.name} without checksums, as netCDF never writes it")

"""A run's results.nc, checked before anything in it is believed: it may be damaged, of another version, or hostile."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import psutil
import xarray as xr

from sae_jax.settings import UserError
from sae_jax.sweeps.dataset import FORMAT, PARAMETERS, dimensions
from sae_jax.sweeps.grid import ALL_SETTINGS

DAMAGED = "the file is damaged or of another version: train the run again"


def read_results(path: Path) -> xr.Dataset:
    """The Dataset in a results.nc; nothing outside the file is opened for it, and it must fit in memory.

    Raises:
        UserError: it lacks what every sweep has, or was written by another version.
        Exception: of whatever kind, it is not what it should be.
    """
    with h5py.File(path, "r") as file:
        _check_sums(file)
        needed = sum(_plain(file, name).nbytes for name in file)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ValueError(f"{needed / 2**20:,.0f} MiB where {available / 2**20:,.0f} MiB of memory are free")
    with warnings.catch_warnings():
        # What xarray only warns of is nothing that it writes itself.
        warnings.simplefilter("error")
        dataset = xr.load_dataset(path, engine="h5netcdf", decode_times=False)
    _check_complete(dataset)
    return dataset.drop_encoding()  # How it was stored is not how it will be.


def _plain(file: h5py.File, name: str) -> h5py.Dataset:
    """A variable of a file; HDF5 knows some whose numbers are taken from other files."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} points to another place")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name} is no variable")
    _check_sums(found)
    if found.external or found.is_virtual:
        raise ValueError(f"{name} is kept in another file")
    if found.dtype.kind not in "fiubSU" and h5py.check_string_dtype(found.dtype) is None:
        raise ValueError(f"{name} is of {found.dtype}, neither numbers nor text")
    return found


def _check_sums(found: h5py.File | h5py.Dataset) -> None:
    """Refuse what is described in the oldest of HDF5's ways, without checksums: damaged, it may crash the library."""
    if h5py.h5o.get_info(found.id).hdr.version < 2:
        raise ValueError(f"{found.name} without checksums, as netCDF never writes it")


def _check_complete(dataset: xr.Dataset) -> None:
    """Refuse measures of another version, or that lack what every sweep has."""
    found = str(dataset.attrs.get("format", FORMAT))
    if found != str(FORMAT):
        raise UserError(
            f"a finished run's results must be of format {FORMAT}: got {found}; "
            "use the version of sae_jax that wrote them, or train the run again"
        )
    lanes = dataset["eval_reconstruction"].dims if "eval_reconstruction" in dataset else ()
    if lanes[-1:] != ("seed",) or not set(lanes[:-1]) <= set(ALL_SETTINGS):
        raise UserError(
            "a finished run's results must hold eval_reconstruction over settings, then seed: "
            f"got {', '.join(map(str, lanes)) or 'none'}; {DAMAGED}"
        )
    for name, own in dimensions().items():
        if name in PARAMETERS:  # They are in a file of their own.
            continue
        wanted = (*lanes, *own)
        there: Any = dataset.get(name)
        if there is None or there.dims != wanted or there.dtype.kind not in "fi":
            got = "none" if there is None else f"{there.dtype} over {', '.join(map(str, there.dims)) or 'nothing'}"
            raise UserError(
                f"a finished run's results must hold numbers {name} over {', '.join(map(str, wanted))}: "
                f"got {got}; {DAMAGED}"
            )

"""A labelled xarray.Dataset <-> the files of a finished run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5netcdf
import xarray as xr

from sae_jax.settings import UserError, nearest
from sae_jax.storage.arrays import PIECE_BYTES, map_tensors, pieces, save_tensors, sync, unwritable
from sae_jax.storage.stored import read_results
from sae_jax.sweeps.dataset import PARAMETERS, labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS_FILE, PARAMS_FILE = "results.nc", "params.safetensors"


def save(dataset: xr.Dataset, folder: Path) -> None:
    """Write a sweep: parameters to params.safetensors, the other variables to results.nc.

    Args:
        dataset: what `sae_jax.sweep` returned.
        folder: an existing folder; files of the same names are replaced, each in one move.

    Raises:
        UserError: the folder cannot be written to.
    """
    parameters = {name: dataset[name].values for name in PARAMETERS}
    dims = {name: ",".join(map(str, dataset[name].dims)) for name in PARAMETERS}
    with _writing(folder):
        _replace(folder / PARAMS_FILE, lambda path: save_tensors(path, parameters, dims))
    save_measures(dataset, folder)


def save_measures(dataset: xr.Dataset, folder: Path) -> None:
    """Write results.nc alone: all variables but the parameters; arguments and errors are those of `save`."""
    measures = dataset.drop_vars(list(PARAMETERS))
    large = [name for name, values in measures.data_vars.items() if values.nbytes > PIECE_BYTES]

    def write(path: Path) -> None:
        measures.drop_vars(large).to_netcdf(path, engine="h5netcdf")
        if large:
            with h5netcdf.File(path, "a") as file:
                for name in large:
                    _append(file, str(name), measures[name])

    with _writing(folder):
        _replace(folder / RESULTS_FILE, write)


def _append(file: h5netcdf.File, name: str, variable: xr.DataArray) -> None:
    """Write a variable piece by piece, where xarray would hold all of it."""
    for dim, size in variable.sizes.items():
        if dim not in file.dimensions:
            file.dimensions[str(dim)] = size
    stored = file.create_variable(name, tuple(map(str, variable.dims)), variable.dtype)
    stored.attrs.update(variable.attrs)
    for index, part in pieces(variable.values):
        stored[index] = part


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, its folder made where it is missing; errors are those of `save`."""
    with _writing(path.parent):
        if path.parent.is_symlink():
            raise unwritable(path.parent, "it is a link to another place")
        path.parent.mkdir(exist_ok=True)
        _replace(path, lambda temporary: figure.savefig(temporary, format="png"))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error.strerror or str(error)) from None


def load(folder: str | Path) -> xr.Dataset:
    """Read a run's folder back into the Dataset that `sae_jax.sweep` returned.

    Raises:
        UserError: the folder holds no finished run, or one whose files are damaged or of another version.
    """
    folder = Path(folder)
    for name in (RESULTS_FILE, PARAMS_FILE):
        if not os.path.isfile(folder / name):
            runs = [path.parent for path in folder.parent.glob(f"*/{PARAMS_FILE}") if path.parent != folder]
            raise UserError(f"a finished run's folder must hold {name}: got {folder}; {nearest(folder, runs)}")
    try:
        dataset = read_results(folder / RESULTS_FILE)
        tensors, lane_dims = map_tensors(folder / PARAMS_FILE), dataset["eval_reconstruction"].dims
        if set(tensors) != set(PARAMETERS):
            raise ValueError(f"{PARAMS_FILE} with {', '.join(map(repr, tensors)) or 'nothing'}")
        for name, (dims, label) in PARAMETERS.items():
            dataset[name] = ((*lane_dims, *dims), tensors[name], labels(label, "1"))
    except UserError:
        raise
    except Exception as error:  # HDF5, netCDF and safetensors fail in as many ways as there are damaged files.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"a finished run's files must be readable: {folder}: got {reason}; train it again") from None
    return dataset


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)  # A link that somebody has left there would be written through.
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)

"""A labelled xarray.Dataset <-> the files of a finished run, which describe themselves (see `description`)."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from sae_jax.settings import UserError, check_type, nearest
from sae_jax.storage.atomic import as_path, check_reachable, mend_unread, reason_of, unwritable, write_file, writing
from sae_jax.storage.description import (
    FORMAT,
    PARAMETERS_OF,
    PARAMETERS_SEED,
    check_description,
    format_of,
    names_of_kind,
    parameters_of,
    with_settings,
)
from sae_jax.storage.format1 import upgrade
from sae_jax.storage.netcdf import read_netcdf, write_netcdf
from sae_jax.storage.tensors import map_tensors, save_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS_FILE, PARAMS_FILE = "results.nc", "params.safetensors"
FIGURES_FOLDER = "the folder of figures"


def save(dataset: xr.Dataset, folder: str | Path) -> None:
    """Write a sweep: variables of kind parameter to params.safetensors, the others to results.nc.

    Args:
        dataset: what `sae_jax.sweep` returned.
        folder: an existing folder; files of the same names are replaced, each in one move.

    Raises:
        UserError: the folder cannot be written to.
        UserError: the Dataset does not describe itself; nothing is written.
    """
    folder = _path(folder)
    _check_dataset(dataset)
    parameters = {name: dataset[name] for name in names_of_kind(dataset, "parameter")}
    tensors = {name: variable.values for name, variable in parameters.items()}
    metadata = {name: _declared(variable) for name, variable in parameters.items()}
    if parameters_of(dataset) != "all":
        metadata[PARAMETERS_OF] = parameters_of(dataset)
    if parameters_of(dataset) == "best":
        of_seed = dataset[PARAMETERS_SEED]
        metadata[PARAMETERS_SEED] = json.dumps(
            {"dims": list(map(str, of_seed.dims)), "values": of_seed.values.tolist()}
        )
    with writing(folder):
        write_file(folder / PARAMS_FILE, lambda path: save_tensors(path, tensors, metadata))
    save_measures(dataset, folder)


def save_measures(dataset: xr.Dataset, folder: Path) -> None:
    """Write results.nc alone: all variables but the parameters; arguments and errors are those of `save`."""
    _check_dataset(dataset)
    measures = dataset.drop_vars(names_of_kind(dataset, "parameter"))
    with writing(folder):
        write_file(folder / RESULTS_FILE, lambda path: write_netcdf(measures, path))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that its name ends with, its folder made where it is missing.

    Raises:
        UserError: the folder cannot be written to, or is a link.
    """
    kind = path.suffix.removeprefix(".")
    # Without the time, so that what is drawn again is the same file.
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    drawn = io.BytesIO()  # What writes images itself says of a full disk that it failed, and not why.
    figure.savefig(drawn, format=kind, metadata=dates)
    with writing(path.parent, FIGURES_FOLDER):
        if path.parent.is_symlink():
            raise unwritable(path.parent, "it is a link to another place", FIGURES_FOLDER)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, drawn.getvalue())


def _check_dataset(dataset: Any) -> None:
    ours = "use what sae_jax.sweep returned"
    check_type("dataset", dataset, xr.Dataset, "an xarray.Dataset", ours)
    try:
        check_description(dataset)
    except ValueError as error:
        raise UserError(f"dataset must describe itself as those of a sweep do: got {error}; {ours}") from None


def _path(folder: str | Path) -> Path:
    return as_path("folder", folder, "the path of a run's folder", "use runs/NAME")


def load(folder: str | Path) -> xr.Dataset:
    """Read a run's folder back into the Dataset that `sae_jax.sweep` returned; one of format 1 in today's.

    Raises:
        UserError: the folder holds no finished run, or one whose files are damaged, of a newer version or closed to
            this user.
    """
    folder = _path(folder)
    for name in (RESULTS_FILE, PARAMS_FILE):
        check_reachable(folder / name, "a finished run")
        if not os.path.isfile(folder / name):
            runs = [path.parent for path in folder.parent.glob(f"*/{PARAMS_FILE}") if path.parent != folder]
            raise UserError(f"a finished run's folder must hold {name}: got {folder}; {nearest(folder, runs)}")
    try:
        dataset = read_netcdf(folder / RESULTS_FILE)
        if format_of(dataset) > FORMAT:
            raise UserError(
                f"a finished run's results must be of format {FORMAT} or an earlier one: got {format_of(dataset)}; "
                "use the version of sae_jax that wrote them, or train the run again"
            )
        dataset, parameters = upgrade(dataset, _read_parameters(folder / PARAMS_FILE))
        for name in parameters:
            if name in dataset.variables:
                raise ValueError(f"{name} in both {RESULTS_FILE} and {PARAMS_FILE}")
        dataset = with_settings(dataset.assign(parameters))
        check_description(dataset)
    except UserError:
        raise
    except Exception as error:  # HDF5, netCDF and safetensors fail in as many ways as there are damaged files.
        fix = mend_unread(error, "train it again")
        raise UserError(f"a finished run's files must be readable: {folder}: got {reason_of(error)}; {fix}") from None
    return dataset


def _declared(variable: xr.DataArray) -> str:
    """What params.safetensors says of a parameter: enough to label it without results.nc."""
    labels = {name: variable.attrs[name] for name in ("long_name", "units")}
    return json.dumps({"dims": list(map(str, variable.dims)), **labels})


def _read_parameters(path: Path) -> dict[str, xr.Variable]:
    """The parameters of a params.safetensors, labelled as it says; those of format 1 have no attributes.

    Raises:
        Exception: of whatever kind, the file is damaged or does not describe a tensor.
    """
    tensors, metadata = map_tensors(path)
    parameters = {}
    for name, values in tensors.items():
        if name not in metadata:
            raise ValueError(f"{name!r}, which {PARAMS_FILE} does not describe")
        declared = json.loads(metadata[name]) if metadata[name].startswith("{") else None
        dims = declared["dims"] if declared else metadata[name].split(",")
        if not isinstance(dims, list) or any(not isinstance(dim, str) for dim in dims) or len(set(dims)) < len(dims):
            raise ValueError(f"{name} over {dims}, which are no dimensions")
        attributes = (
            {"long_name": declared["long_name"], "units": declared["units"], "kind": "parameter"} if declared else {}
        )
        parameters[name] = xr.Variable(dims, values, attributes)
    return parameters

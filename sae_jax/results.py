"""Sweep output <-> one labelled xarray.Dataset <-> files."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sae_jax.activations import ACTIVATIONS
from sae_jax.config import Config
from sae_jax.grids import ALL_SETTINGS, Grid
from sae_jax.settings import UserError, as_json

PARAMETERS = {
    "encoder_weight": (("input", "unit"), "encoder weight We"),
    "encoder_bias": (("unit",), "encoder bias be"),
    "decoder_weight": (("unit", "input"), "decoder rows Wd (the encoder's transpose where tied)"),
    "decoder_bias": (("input",), "decoder bias bd"),
}
RESULTS_FILE, PARAMS_FILE, CONFIG_FILE = "results.nc", "params.safetensors", "config.json"

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "xarray", "h5netcdf", "safetensors"),
    *("scikit-learn", "scikit-image", "tensorflow-datasets"),
)


def to_dataset(
    grid: Grid,
    config: Config,
    lanes: Mapping[str, np.ndarray],
    steps: np.ndarray,
    image_shape: tuple[int, int] | None,
) -> xr.Dataset:
    """Label the arrays of one program's lanes.

    Args:
        grid: the lane axes and seeds are read.
        config: the program's static settings.
        lanes: arrays by variable name, each with leading axes [cells, seeds].
        steps: step numbers of the logged points.
        image_shape: (height, width) where a sample is an image.

    Returns:
        A Dataset with the lane axes, then seed, then what the variable itself has: step, unit or input.
    """
    active = f"{ACTIVATIONS[config.activation].active_rule} for {config.activation} codes"
    units = {"mean_squared_error": "squared input units", "bernoulli": "nat"}.get(
        config.reconstruction_loss, "squared input units per sample"
    )
    window = "mean over the steps since the last logged one"
    described: dict[str, tuple[tuple[str, ...], str, str]] = {
        "loss": (("step",), f"training loss with penalty and weight decay, {window}", units),
        "reconstruction": (("step",), f"reconstruction term of the training loss, {window}", units),
        "penalty": (("step",), f"beta * sum_j KL(rho || rho_hat_j), {window}", "nat"),
        "eval_reconstruction": ((), f"reconstruction loss ({config.reconstruction_loss}) on held-out data", units),
        "eval_explained_variance": ((), "explained variance on held-out data; 0 is predicting the mean", "1"),
        "eval_l0": ((), f"mean number of active units per held-out sample; active: {active}", "unit"),
        "eval_dead_fraction": ((), f"share of units active on no held-out sample; active: {active}", "1"),
        "eval_mean_activation": (("unit",), "mean activity on held-out data (tanh codes as (h + 1) / 2)", "1"),
        "eval_max_activation": (("unit",), "largest activity on held-out data (tanh codes as (h + 1) / 2)", "1"),
        "diverged_at": ((), "step at which the lane turned non-finite and was frozen; -1 where it did not", "step"),
        "stopped_at": ((), "step at which early stopping ended the lane; -1 where it did not", "step"),
    } | {name: (dims, label, "1") for name, (dims, label) in PARAMETERS.items()}
    lane_dims = (*grid.lane_axes, "seed")
    variables: dict[str, Any] = {
        name: (lane_dims + dims, np.reshape(lanes[name], grid.shape + lanes[name].shape[2:]), labels(label, unit))
        for name, (dims, label, unit) in described.items()
    }
    for name, side in zip(("image_height", "image_width"), image_shape or (0, 0), strict=True):
        variables[name] = (
            (),
            np.int32(side),
            labels(f"{name.replace('_', ' ')}; 0 where samples are no images", "pixel"),
        )
    coordinates: dict[str, Any] = lane_coordinates(grid)
    coordinates["step"] = ("step", np.asarray(steps), labels("training steps taken", "step"))
    coordinates["unit"] = ("unit", np.arange(lanes["encoder_bias"].shape[-1]), labels("hidden unit", "1"))
    coordinates["input"] = ("input", np.arange(lanes["decoder_bias"].shape[-1]), labels("input", "1"))
    return xr.Dataset(variables, coordinates)


def labels(long_name: str, units: str) -> dict[str, str]:
    """The two attributes that every variable carries."""
    return {"long_name": long_name, "units": units}


def coordinate(name: str, values: Any) -> tuple[str, np.ndarray, dict[str, str]]:
    """The labelled coordinate of a swept setting."""
    metadata = ALL_SETTINGS[name].metadata
    return name, np.asarray(values), labels(metadata["help"], metadata["unit"])


def lane_coordinates(grid: Grid) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """The labelled coordinates of the lane axes and of seed."""
    coordinates = {name: coordinate(name, values) for name, values in grid.lane_axes.items()}
    return coordinates | {"seed": ("seed", np.asarray(grid.seeds), labels("seed of initialisation and batches", "1"))}


def join(grid: Grid, programs: list[tuple[dict[str, Any], xr.Dataset]], data: list[list[float]]) -> xr.Dataset:
    """One Dataset of all programs: its dimensions are the axes in the order given, then seed, step, unit, input.

    Its attributes config and data hold every setting, and by what each program's samples are known again.
    Where programs differ in the number of units, inputs or logged steps, the shorter ones are filled up with NaN.
    """
    dataset = side_by_side(grid, programs)
    recorded = {"config": json.dumps(settings_json(grid)), "data": json.dumps(data)}
    dataset.attrs = {"title": "sparse autoencoder sweep"} | recorded
    return dataset


def side_by_side(grid: Grid, programs: list[tuple[dict[str, Any], xr.Dataset]]) -> xr.Dataset:
    """Variables of all programs along the program axes; arguments and order of dimensions as in `join`."""
    points = [dataset.expand_dims({name: [value] for name, value in point.items()}) for point, dataset in programs]
    for name, values in reversed(grid.program_axes.items()):
        groups = [points[i : i + len(values)] for i in range(0, len(points), len(values))]
        points = [xr.concat(group, dim=name, join="outer", combine_attrs=_both_labels) for group in groups]
    dataset = points[0]
    for name, values in grid.program_axes.items():
        dataset[name].attrs = coordinate(name, values)[2]
    return dataset.transpose(*grid.axes, "seed", ...)


def _both_labels(attributes: list[dict[str, str]], context: Any) -> dict[str, str]:
    """Labels of a variable whose programs label it differently, such as by what counts as active: all of them."""
    names = dict.fromkeys(name for labelled in attributes for name in labelled)
    return {name: " / ".join(dict.fromkeys(labelled[name] for labelled in attributes)) for name in names}


def settings_json(grid: Grid) -> dict[str, Any]:
    """Every setting of a sweep: a list of values where it varies."""
    values = {**as_json(grid.config), **as_json(grid.data), **grid.fixed}
    swept = {name: list(axis) for name, axis in grid.axes.items()}
    return {name: swept.get(name, values.get(name)) for name in ALL_SETTINGS} | {"seeds": list(grid.seeds)}


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something already, or that could not be made.

    Raises:
        UserError: it does, it is no folder, or the folder that would hold it cannot be written to.
    """
    try:
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if taken:
        raise UserError(f"the run's folder must be new or empty: got {folder}; choose another --name")
    if not parent.is_dir():
        raise _unwritable(folder, f"{parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"{parent} is read-only")


@contextlib.contextmanager
def claim(folder: Path, settings: Mapping[str, Any], command: str, run: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder of a run and write config.json into it, before anything is trained.

    Where the body fails before it has saved results, both are taken away again.

    Args:
        folder: new or empty.
        settings: every setting of the sweep.
        command: the command line.
        run: what it ran on.

    Raises:
        UserError: the folder holds another run, also one that began a moment ago, or cannot be written to.
    """
    check_free(folder)
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    content = {"command": command, "settings": settings, "run": run, "versions": versions}
    path = folder / CONFIG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
    except FileExistsError:
        raise UserError(f"the run's folder must be new or empty: got {folder}; choose another --name") from None
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    try:
        yield
    except BaseException:
        if not (folder / RESULTS_FILE).exists():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Somebody has put a file there.
                folder.rmdir()
        raise


def save(dataset: xr.Dataset, folder: Path) -> None:
    """Write a sweep: parameters to params.safetensors, the other variables to results.nc.

    Args:
        dataset: what `sae_jax.sweep` returned.
        folder: an existing folder; files of the same names are replaced, each in one move.

    Raises:
        UserError: the folder cannot be written to.
    """
    parameters = {name: np.ascontiguousarray(dataset[name].values, np.float32) for name in PARAMETERS}
    dims = {name: ",".join(map(str, dataset[name].dims)) for name in PARAMETERS}
    with _writing(folder):
        _replace(folder / PARAMS_FILE, lambda path: save_file(parameters, path, metadata=dims))
    save_measures(dataset, folder)


def save_measures(dataset: xr.Dataset, folder: Path) -> None:
    """Write results.nc alone: all variables but the parameters; arguments and errors are those of `save`."""
    rest = dataset.drop_vars(list(PARAMETERS))
    with _writing(folder):
        _replace(folder / RESULTS_FILE, lambda path: rest.to_netcdf(path, engine="h5netcdf"))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, its folder made where it is missing; errors are those of `save`."""
    with _writing(path.parent):
        path.parent.mkdir(exist_ok=True)
        _replace(path, lambda temporary: figure.savefig(temporary, format="png"))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from None


def load(folder: str | Path) -> xr.Dataset:
    """Read a run's folder back into the Dataset that `sae_jax.sweep` returned.

    Raises:
        UserError: the folder holds no finished run.
    """
    folder = Path(folder)
    for name in (RESULTS_FILE, PARAMS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"a finished run's folder must hold {name}: got {folder}")
    try:
        dataset = xr.load_dataset(folder / RESULTS_FILE, engine="h5netcdf")
        lane_dims = dataset["eval_reconstruction"].dims
        for name, values in load_file(folder / PARAMS_FILE).items():
            dims, label = PARAMETERS[name]
            dataset[name] = ((*lane_dims, *dims), values, labels(label, "1"))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"a finished run's files must be readable: {folder}: {reason}; train it again") from None
    return dataset


def _unwritable(folder: Path, reason: str | None) -> UserError:
    return UserError(f"the run's folder must be writable: got {folder}: {reason}; choose another --name or --runs")


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

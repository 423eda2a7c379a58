"""The arrays of a sweep's lanes as one labelled xarray.Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.models.activations import ACTIVATIONS
from sae_jax.settings import as_json
from sae_jax.storage.arrays import Opener
from sae_jax.storage.description import FORMAT
from sae_jax.sweeps.grid import ALL_SETTINGS, Grid
from sae_jax.training.config import Config
from sae_jax.training.lane import windows

PARAMETERS = {
    "encoder_weight": (("unit", "input"), "encoder rows We"),
    "encoder_bias": (("unit",), "encoder bias be"),
    "decoder_weight": (("unit", "input"), "decoder rows Wd (the encoder's where tied)"),
    "decoder_bias": (("input",), "decoder bias bd"),
}


class Shape(NamedTuple):
    """What one program's lanes are the size of.

    Attributes:
        point: its values on the program axes.
        config: its static settings.
        inputs: values of a sample.
        image: (height, width) where a sample is an image.
    """

    point: Mapping[str, Any]
    config: Config
    inputs: int
    image: tuple[int, int] | None


class Frame(NamedTuple):
    """A Dataset that is being filled, lane by lane.

    Attributes:
        grid: the sweep.
        programs: its programs.
        opened: finds an array of all lanes of all programs by its name, or makes it.
    """

    grid: Grid
    programs: Sequence[Shape]
    opened: Opener

    @property
    def steps(self) -> np.ndarray:
        """Step numbers of the logged points of any program."""
        return np.unique(np.concatenate([windows(program.config.steps) for program in self.programs]))

    @property
    def sizes(self) -> dict[str, int]:
        """How long the dimensions are that are no axes."""
        units = max(program.config.d_hidden for program in self.programs)
        return {"step": len(self.steps), "unit": units, "input": max(program.inputs for program in self.programs)}

    def array(self, name: str) -> np.ndarray:
        """The array of a variable over all lanes: [axes in the order given, seed, the variable's own dimensions]."""
        dims, sizes = _described(self.programs[0].config)[name][0], self.sizes
        lanes = (*map(len, self.grid.axes.values()), len(self.grid.seeds))
        return self.opened(name, lanes + tuple(sizes[dim] for dim in dims), DTYPES.get(name, np.float32))


DTYPES = {"diverged_at": np.int32, "stopped_at": np.int32}


def put(frame: Frame, program: Shape, found: Mapping[str, np.ndarray], cells: np.ndarray, seeds: np.ndarray) -> None:
    """Put finished lanes where they belong, filled up with NaN where other programs have more units, inputs or steps.

    Args:
        frame: what is being filled.
        program: whose lanes they are.
        found: arrays by variable name, [lanes, the variable's own dimensions].
        cells, seeds: positions of the lanes among the program's cells and among the seeds, [lanes].
    """
    own: dict[str, Any] = {
        "step": np.searchsorted(frame.steps, windows(program.config.steps)),
        "unit": slice(program.config.d_hidden),
        "input": slice(program.inputs),
    }
    where = (*frame.grid.position(program.point, cells), seeds)
    described = _described(program.config)
    for name, values in found.items():
        array = frame.array(name)
        dims = described[name][0]
        shape = (len(values), *(frame.sizes[dim] for dim in dims))
        if shape != values.shape:
            wide = np.full(shape, np.nan, values.dtype)
            wide[(slice(None), *(own[dim] for dim in dims))] = values
            values = wide
        array[where] = values


def to_dataset(frame: Frame, data: Sequence[Sequence[float]]) -> xr.Dataset:
    """Label the arrays of all lanes.

    Args:
        frame: filled.
        data: by what each program's samples are known again.

    Returns:
        A Dataset whose dimensions are the axes in the order given, then seed, then what the variable itself has: step,
        unit or input. Its attributes config and data hold every setting, and `data`.
    """
    grid, described = frame.grid, [_described(program.config) for program in frame.programs]
    variables: dict[str, Any] = {}
    for name, (dims, _, _, kind) in described[0].items():
        # Programs may label a variable differently, such as by what counts as active: all of it is said.
        said = [" / ".join(dict.fromkeys(words)) for words in zip(*(one[name][1:3] for one in described), strict=True)]
        variables[name] = ((*grid.axes, "seed", *dims), frame.array(name), labels(*said) | {"kind": kind})
    for i, name in enumerate(("image_height", "image_width")):
        sides = [program.image[i] if program.image else 0 for program in frame.programs]
        text = f"{name.replace('_', ' ')}; 0 where samples are no images"
        shape = tuple(map(len, grid.program_axes.values()))
        attributes = labels(text, "pixel") | {"kind": "status"}
        variables[name] = (tuple(grid.program_axes), np.asarray(sides, np.int32).reshape(shape), attributes)
    coordinates: dict[str, Any] = {name: coordinate(name, values) for name, values in grid.axes.items()}
    coordinates |= lane_coordinates(grid)
    coordinates["step"] = ("step", frame.steps, labels("training steps taken", "step"))
    coordinates["unit"] = ("unit", np.arange(frame.sizes["unit"]), labels("hidden unit", "1"))
    coordinates["input"] = ("input", np.arange(frame.sizes["input"]), labels("input", "1"))
    about: dict[str, Any] = {
        "title": "sparse autoencoder sweep",
        "format": FORMAT,
        "axes": json.dumps(list(grid.axes)),
        "config": json.dumps(settings_json(grid)),
        "data": json.dumps(data),
    }
    return xr.Dataset(variables, coordinates, about)


def _described(config: Config) -> dict[str, tuple[tuple[str, ...], str, str, str]]:
    """Dimensions beside the lanes', label, units and kind of every variable."""
    active = f"{ACTIVATIONS[config.activation].active_rule} for {config.activation} codes"
    units = {"mean_squared_error": "squared input units", "bernoulli": "nat"}.get(
        config.reconstruction_loss, "squared input units per sample"
    )
    window = "mean since the step logged before"
    curves = {
        "loss": (("step",), f"training loss, {window}", units),
        "reconstruction": (("step",), f"reconstruction term, {window}", units),
        "penalty": (("step",), f"beta * sum_j KL(rho || rho_hat_j), {window}", "nat"),
    }
    measures = {
        "eval_reconstruction": ((), f"reconstruction loss ({config.reconstruction_loss}) on held-out data", units),
        "eval_explained_variance": ((), "explained variance on held-out data; 0 is predicting the mean", "1"),
        "eval_l0": ((), f"mean number of active units per held-out sample; active: {active}", "unit"),
        "eval_dead_fraction": ((), f"share of units active on no held-out sample; active: {active}", "1"),
        "eval_mean_activation": (("unit",), "mean activity on held-out data (tanh codes as (h + 1) / 2)", "1"),
        "eval_max_activation": (("unit",), "largest activity on held-out data (tanh codes as (h + 1) / 2)", "1"),
    }
    statuses = {
        "diverged_at": ((), "step at which the lane turned non-finite and was frozen; -1 where it did not", "step"),
        "stopped_at": ((), "step at which early stopping ended the lane; -1 where it did not", "step"),
    }
    parameters = {name: (dims, label, "1") for name, (dims, label) in PARAMETERS.items()}
    kinds: dict[str, dict[str, Any]] = {
        "curve": curves,
        "measure": measures,
        "status": statuses,
        "parameter": parameters,
    }
    return {name: (*described, kind) for kind, group in kinds.items() for name, described in group.items()}


def labels(long_name: str, units: str) -> dict[str, str]:
    """The two attributes that every variable and coordinate carries."""
    return {"long_name": long_name, "units": units}


def coordinate(name: str, values: Any) -> tuple[str, np.ndarray, dict[str, str]]:
    """The labelled coordinate of a swept setting."""
    metadata = ALL_SETTINGS[name].metadata
    return name, np.asarray(values), labels(metadata["help"], metadata["unit"])


def lane_coordinates(grid: Grid) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """The labelled coordinates of the lane axes and of seed."""
    coordinates = {name: coordinate(name, values) for name, values in grid.lane_axes.items()}
    return coordinates | {"seed": ("seed", np.asarray(grid.seeds), labels("seed of initialisation and batches", "1"))}


def side_by_side(grid: Grid, programs: list[tuple[dict[str, Any], xr.Dataset]]) -> xr.Dataset:
    """Variables of all programs along the program axes.

    Args:
        grid: the axes are read.
        programs: of every program its values on the program axes and its Dataset, in the grid's order.

    Returns:
        One Dataset whose dimensions are the grid's axes in their order, seed, and the rest.
    """
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

"""The arrays of a sweep's lanes as one labelled xarray.Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.models.base import Term
from sae_jax.storage.arrays import Opener
from sae_jax.storage.description import FORMAT
from sae_jax.sweeps.grid import Grid, fields_of
from sae_jax.sweeps.program import Program
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import measures_of
from sae_jax.training.lane import windows
from sae_jax.training.step import curves_of


class Variable(NamedTuple):
    """A variable of the lanes: dimensions beside theirs, label, units, and its kind.

    The kinds are parameter, curve (over steps), measure (on held-out data), status (how a lane ended), and task (what
    was measured of finished lanes).
    """

    dims: tuple[str, ...]
    label: str
    units: str
    kind: str
    dtype: Any = np.float32

    @property
    def attributes(self) -> dict[str, str]:
        """What the variable says of itself."""
        return labels(self.label, self.units) | {"kind": self.kind}


def variables_of(settings: LaneSettings) -> dict[str, Variable]:
    """Every variable of a program's lanes, from the declarations of its terms, measures and parameters."""
    model, declared = settings.architecture, settings.model
    terms = model.terms(declared)
    window = "mean since the step logged before"
    first = next(iter(terms.values()))
    curves = curves_of(Term("training loss", first.units), terms)
    return {
        **{name: Variable(("step",), f"{term.label}, {window}", term.units, "curve") for name, term in curves.items()},
        **{
            f"eval_{name}": Variable(measure.dims, measure.label, measure.units, "measure")
            for name, measure in measures_of(model, declared).items()
        },
        "diverged_at": Variable(
            (),
            "step at which the lane turned non-finite and was frozen; -1 where it did not",
            "step",
            "status",
            np.int32,
        ),
        "stopped_at": Variable(
            (), "step at which early stopping ended the lane; -1 where it did not", "step", "status", np.int32
        ),
        **{
            name: Variable(parameter.dims, parameter.label, "1", "parameter")
            for name, parameter in model.parameters(declared).items()
        },
    }


class Frame(NamedTuple):
    """A Dataset that is being filled, lane by lane.

    Attributes:
        grid: the sweep.
        programs: its programs.
        opened: finds an array of all lanes of all programs by its name, or makes it.
    """

    grid: Grid
    programs: Sequence[Program]
    opened: Opener

    @property
    def steps(self) -> np.ndarray:
        """Step numbers of the logged points of any program."""
        return np.unique(np.concatenate([windows(program.settings.training.steps) for program in self.programs]))

    @property
    def sizes(self) -> dict[str, int]:
        """How long the dimensions are that are no axes."""
        units = max(program.settings.model.d_hidden for program in self.programs)
        inputs = max(program.data.train.shape[1] for program in self.programs)
        return {"step": len(self.steps), "unit": units, "input": inputs}

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of any program; labels that differ between programs, such as what counts as active, all."""
        described = [variables_of(program.settings) for program in self.programs]
        every: dict[str, list[Variable]] = {}
        for one in described:
            for name, variable in one.items():
                every.setdefault(name, []).append(variable)
        return {
            name: same[0]._replace(
                label=" / ".join(dict.fromkeys(one.label for one in same)),
                units=" / ".join(dict.fromkeys(one.units for one in same)),
            )
            for name, same in every.items()
        }

    def array(self, name: str, variable: Variable) -> np.ndarray:
        """The array of a variable over all lanes: [axes in the order given, seed, the variable's own dimensions]."""
        sizes = self.sizes
        lanes = (*map(len, self.grid.axes.values()), len(self.grid.seeds))
        return self.opened(name, lanes + tuple(sizes[dim] for dim in variable.dims), variable.dtype)


def put(frame: Frame, program: Program, values: Mapping[str, np.ndarray], cells: np.ndarray, seeds: np.ndarray) -> None:
    """Put finished lanes where they belong, filled up with NaN where other programs have more units, inputs or steps.

    Args:
        frame: what is being filled.
        program: whose lanes they are.
        values: arrays by variable name, [lanes, the variable's own dimensions]; NaN for those of other programs.
        cells, seeds: positions of the lanes among the program's cells and among the seeds, [lanes].
    """
    inside: dict[str, Any] = {
        "step": np.searchsorted(frame.steps, windows(program.settings.training.steps)),
        "unit": slice(program.settings.model.d_hidden),
        "input": slice(program.data.train.shape[1]),
    }
    where = (*frame.grid.position(program.point, cells), seeds)
    for name, variable in frame.variables.items():
        shape = (len(cells), *(frame.sizes[dim] for dim in variable.dims))
        part = values.get(name)
        if part is None or part.shape != shape:
            wide = np.full(shape, np.nan, variable.dtype)
            if part is not None:
                wide[(slice(None), *(inside[dim] for dim in variable.dims))] = part
            part = wide
        frame.array(name, variable)[where] = part


def to_dataset(frame: Frame) -> xr.Dataset:
    """Label the arrays of all lanes.

    Args:
        frame: filled.

    Returns:
        A Dataset whose dimensions are the axes in the order given, then seed, then what the variable itself has: step,
        unit or input. Its attributes: config, every setting; data, by what each program's samples are known again;
        axes, the settings that vary, in order.
    """
    grid, image = frame.grid, {}
    for i, name in enumerate(("image_height", "image_width")):
        shapes = [program.data.image_shape for program in frame.programs]
        sides = np.asarray([shape[i] if shape else 0 for shape in shapes], np.int32)
        text = f"{name.replace('_', ' ')}; 0 where samples are no images"
        values = sides.reshape(tuple(map(len, grid.program_axes.values())))
        image[name] = (tuple(grid.program_axes), values, labels(text, "pixel") | {"kind": "status"})
    lanes = {
        name: ((*grid.axes, "seed", *variable.dims), frame.array(name, variable), variable.attributes)
        for name, variable in frame.variables.items()
    }
    coordinates: dict[str, Any] = {name: coordinate(grid, name, values) for name, values in grid.axes.items()}
    coordinates |= lane_coordinates(grid)
    coordinates["step"] = ("step", frame.steps, labels("training steps taken", "step"))
    coordinates["unit"] = ("unit", np.arange(frame.sizes["unit"]), labels("hidden unit", "1"))
    coordinates["input"] = ("input", np.arange(frame.sizes["input"]), labels("input", "1"))
    attributes = {
        "title": "sparse autoencoder sweep",
        "format": FORMAT,
        "config": json.dumps(grid.as_json()),
        "data": json.dumps([program.data.summary for program in frame.programs]),
        "axes": json.dumps(list(grid.axes)),
    }
    return xr.Dataset(lanes | image, coordinates, attributes)


def labels(long_name: str, units: str) -> dict[str, str]:
    """The two attributes that every variable and coordinate carries."""
    return {"long_name": long_name, "units": units}


def coordinate(grid: Grid, name: str, values: Any) -> tuple[str, np.ndarray, dict[str, str]]:
    """The labelled coordinate of a swept setting."""
    metadata = fields_of(grid.model)[name].metadata
    return name, np.asarray(values), labels(metadata["help"], metadata["unit"])


def lane_coordinates(grid: Grid) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """The labelled coordinates of the lane axes and of seed."""
    coordinates = {name: coordinate(grid, name, values) for name, values in grid.lane_axes.items()}
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
        points = [xr.concat(group, dim=name, join="outer", combine_attrs=_all_labels) for group in groups]
    dataset = points[0]
    for name, values in grid.program_axes.items():
        dataset[name].attrs = coordinate(grid, name, values)[2]
    return dataset.transpose(*grid.axes, "seed", ...)


def _all_labels(attributes: list[dict[str, str]], context: Any) -> dict[str, str]:
    """Labels of a variable whose programs label it differently, such as by what counts as active: all of them."""
    names = dict.fromkeys(name for labelled in attributes for name in labelled)
    return {name: " / ".join(dict.fromkeys(labelled[name] for labelled in attributes)) for name in names}

"""The arrays of a sweep's lanes as one labelled xarray.Dataset."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.data import Truth
from sae_jax.data.normalise import STORED, arrays_of, of_targets, split_arrays
from sae_jax.data.statistics import offset
from sae_jax.models.base import Term
from sae_jax.storage import plugin_list
from sae_jax.storage.arrays import Opener
from sae_jax.storage.description import FORMAT, SETTINGS
from sae_jax.sweeps.grid import Grid, fields_of
from sae_jax.sweeps.program import Point
from sae_jax.sweeps.study import Study
from sae_jax.sweeps.truth import truth_measures
from sae_jax.sweeps.used_parts import used_by
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import measures_of
from sae_jax.training.lane import snapshot_steps, windows
from sae_jax.training.step import curves_of

# The coordinate that holds, as JSON, the numbers by which a program's samples are known again.
SUMMARY = "data_summary"
CONSISTENCY = "seed_consistency"
# The variable that says how far the samples of a program lie from 0.
GAMMA = "input_gamma"
OF_DATA = {"kind": "data"}


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


def variables_of(settings: LaneSettings, truth: Truth | None = None) -> dict[str, Variable]:
    """Every variable of a program's lanes, from the declarations of its terms, measures and parameters.

    Args:
        settings: of the lanes.
        truth: of their samples, where that is known.
    """
    model, declared = settings.architecture, settings.model
    terms = model.terms(declared)
    window = "mean since the step logged before"
    first = next(iter(terms.values()))
    compared = "mean cosine with the decoder rows of the other seeds, matched one to one"
    curves = curves_of(Term("training loss", first.units), terms)
    return {
        **{name: Variable(("step",), f"{term.label}, {window}", term.units, "curve") for name, term in curves.items()},
        **{
            f"eval_{name}": Variable(measure.dims, measure.label, measure.units, "measure")
            for name, measure in measures_of(model, declared).items()
        },
        **{
            name: Variable((), measure.label, measure.units, "measure")
            for name, measure in truth_measures(settings, truth).items()
        },
        **({CONSISTENCY: Variable(("snapshot",), compared, "1", "measure")} if len(snapshot_steps(settings)) else {}),
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


def variables_of_all(points: Sequence[Point]) -> dict[str, Variable]:
    """The variables of any program; labels that differ between programs, such as what counts as active, all."""
    every: dict[str, list[Variable]] = {}
    for point in points:
        for name, variable in variables_of(point.settings, point.data.truth).items():
            every.setdefault(name, []).append(variable)
    return {
        name: same[0]._replace(
            label=" / ".join(dict.fromkeys(one.label for one in same)),
            units=" / ".join(dict.fromkeys(one.units for one in same)),
        )
        for name, same in every.items()
    }


def steps_of(points: Sequence[Point]) -> np.ndarray:
    """Step numbers of the logged points of any program."""
    return np.unique(np.concatenate([windows(point.settings.training.steps) for point in points]))


def snapshots_of(points: Sequence[Point]) -> np.ndarray:
    """Step numbers at which decoder rows of any program are compared."""
    return np.unique(np.concatenate([snapshot_steps(point.settings) for point in points]))


def sizes_of(points: Sequence[Point]) -> dict[str, int]:
    """How long the dimensions are that are no axes."""
    units = max(point.settings.model.d_hidden for point in points)
    widths = [widths_of(point) for point in points]
    sizes = {dim: max(one[dim] for one in widths) for dim in ("input", "target")}
    return {"step": len(steps_of(points)), "unit": units, **sizes, "snapshot": len(snapshots_of(points))}


def widths_of(point: Point) -> dict[str, int]:
    """How many inputs the lanes of a program have, and how many targets beside them."""
    outputs = point.settings.architecture.outputs(point.settings.model)
    return {"input": point.data.train.shape[1] - outputs, "target": outputs}


def places_of_all(points: Sequence[Point], point: Point) -> dict[str, Any]:
    """Where the steps, units, inputs, targets and snapshots of a program stand among those of all."""
    return {
        "step": np.searchsorted(steps_of(points), windows(point.settings.training.steps)),
        "unit": slice(point.settings.model.d_hidden),
        **{dim: slice(width) for dim, width in widths_of(point).items()},
        "snapshot": np.searchsorted(snapshots_of(points), snapshot_steps(point.settings)),
    }


def shape_of(study: Study, variable: Variable) -> tuple[int, ...]:
    """Shape of a variable over all lanes: [the grid's dimensions, seed, its own]."""
    sizes = sizes_of(study.points)
    lanes = (*map(len, study.grid.labels.values()), len(study.grid.seeds))
    return lanes + tuple(sizes[dim] for dim in variable.dims)


def array_of(study: Study, opened: Opener, name: str, variable: Variable) -> np.ndarray:
    """The array of a variable over all lanes."""
    return opened(name, shape_of(study, variable), variable.dtype)


def put(
    study: Study, opened: Opener, number: int, values: Mapping[str, np.ndarray], cells: np.ndarray, seeds: np.ndarray
) -> None:
    """Put finished lanes where they belong, filled up with NaN where other programs have more units, inputs or steps.

    Args:
        study: the sweep.
        opened: finds the arrays of all lanes.
        number: of the point whose lanes they are.
        values: arrays by variable name, [lanes, the variable's own dimensions]; NaN for those of other programs.
        cells, seeds: positions of the lanes among the point's cells and among the seeds, [lanes].
    """
    point, sizes = study.points[number], sizes_of(study.points)
    inside = places_of_all(study.points, point)
    where = (*study.grid.position(point.labels, cells), seeds)
    for name, variable in variables_of_all(study.points).items():
        shape = (len(cells), *(sizes[dim] for dim in variable.dims))
        part = values.get(name)
        if part is None or part.shape != shape:
            wide = np.full(shape, np.nan, variable.dtype)
            if part is not None:
                wide[(slice(None), *(inside[dim] for dim in variable.dims))] = part
            part = wide
        array_of(study, opened, name, variable)[where] = part


def copy_equal(study: Study, opened: Opener) -> None:
    """Put what was measured of cells where the cells stand that are equal to them."""
    shape = tuple(map(len, study.grid.labels.values()))
    for name, variable in variables_of_all(study.points).items():
        array = array_of(study, opened, name, variable)
        for cell, trained in study.equal.items():
            array[np.unravel_index(cell, shape)] = array[np.unravel_index(trained, shape)]


def to_dataset(study: Study, opened: Opener) -> xr.Dataset:
    """Label the arrays of all lanes.

    Args:
        study: the sweep.
        opened: finds the arrays, into which all lanes have been put.

    Returns:
        A Dataset whose dimensions are the grid's in their order, then seed, then what the variable itself has: step,
        unit or input. Every setting is a coordinate: along a dimension where it varies, else a single value. Its
        attributes: axes, the names of the grid's dimensions in order; settings, the names of all settings; config, the
        model.
    """
    grid, points = study.grid, study.points
    image: dict[str, tuple] = {}
    dims, shape, sizes = tuple(grid.program_dims), tuple(grid.program_dims.values()), sizes_of(points)
    for i, name in enumerate(("image_height", "image_width")):
        sides = np.asarray([point.data.image_shape[i] if point.data.image_shape else 0 for point in points], np.int32)
        text = f"{name.replace('_', ' ')}; 0 where samples are no images"
        image[name] = (dims, sides.reshape(shape), labels(text, "pixel") | {"kind": "status"})
    image |= _normalisations(study)
    gammas = np.asarray([offset(point.data.reconstructed) for point in points]).reshape(shape)
    image[GAMMA] = (dims, gammas, labels("gamma, ||mean|| / ||std|| of the samples trained on", "1") | OF_DATA)
    lanes = {
        name: ((*grid.dims, "seed", *variable.dims), array_of(study, opened, name, variable), variable.attributes)
        for name, variable in variables_of_all(points).items()
    }
    summaries = np.asarray([json.dumps(point.data.summary) for point in points])
    same = len(set(summaries.tolist())) == 1
    summary = ((), summaries[0]) if same else (dims, summaries.reshape(shape))
    coordinates = grid_coordinates(grid) | {SUMMARY: (*summary, labels("numbers that tell samples apart", "1"))}
    coordinates["step"] = ("step", steps_of(points), labels("training steps taken", "step"))
    coordinates["unit"] = ("unit", np.arange(sizes["unit"]), labels("hidden unit", "1"))
    if sizes["snapshot"]:
        coordinates["snapshot"] = ("snapshot", snapshots_of(points), labels("training steps taken", "step"))
    coordinates["input"] = ("input", np.arange(sizes["input"]), labels("input", "1"))
    if sizes["target"]:
        coordinates["target"] = ("target", np.arange(sizes["target"]), labels("target", "1"))
    return xr.Dataset(lanes | image, coordinates, {"title": "sparse autoencoder sweep"} | attributes(grid))


def attributes(grid: Grid) -> dict[str, Any]:
    """What a Dataset says of itself that is in no coordinate: alike for sweeps that differ in values alone."""
    declared = {"config": {"model": grid.model.name}, SETTINGS: list(fields_of(grid.model)), "axes": list(grid.dims)}
    used = used_by(grid)
    plugins = {plugin_list.ATTRIBUTE: used} if used else {}
    return {"format": FORMAT} | {name: json.dumps(value) for name, value in (declared | plugins).items()}


def _normalisations(study: Study) -> dict[str, Any]:
    """What was done to the samples of every program; nothing where that is not known of any."""
    every = [point.data.normalisation for point in study.points]
    if not any(every):
        return {}
    dims, sizes, variables = study.grid.program_dims, sizes_of(study.points), {}
    arrays = arrays_of(every, sizes["input"] + sizes["target"])
    if sizes["target"]:
        arrays = split_arrays(every, [widths_of(point) for point in study.points])
    for name, inner_dims, label in STORED.values():
        values = arrays[name].reshape((*dims.values(), *(sizes[dim] for dim in inner_dims)))
        variables[name] = ((*dims, *inner_dims), values, labels(label, "1") | OF_DATA)
        if sizes["target"]:
            values = arrays[of_targets(name)].reshape((*dims.values(), *(sizes["target"] for _ in inner_dims)))
            theirs = labels(of_targets(label), "1") | OF_DATA
            variables[of_targets(name)] = ((*dims, *map(of_targets, inner_dims)), values, theirs)
    return variables


def labels(long_name: str, units: str) -> dict[str, str]:
    """The two attributes that every variable and coordinate carries."""
    return {"long_name": long_name, "units": units}


def grid_coordinates(grid: Grid, among: Sequence[str] | None = None) -> dict[str, Any]:
    """Labelled coordinates: every setting, single values where it does not vary; paired dimensions in words; seed.

    Args:
        grid: whose they are.
        among: the dimensions whose coordinates are wanted, and seed alone beside them; None is all.
    """
    fields, labelled = fields_of(grid.model), grid.labels
    coordinates: dict[str, Any] = {}
    for dim, names in grid.dims.items():
        if among is None or dim in among:
            coordinates[dim] = (dim, np.asarray(labelled[dim]), labels(" and ".join(names) + ", paired", "1"))
            coordinates |= {name: (dim, np.asarray(grid.axes[name]), _labels_of(fields[name])) for name in names}
    coordinates["seed"] = ("seed", np.asarray(grid.seeds), labels("seed of initialisation and batches", "1"))
    if among is None:
        coordinates |= {name: ((), value, _labels_of(fields[name])) for name, value in grid.constant.items()}
    return coordinates


def _labels_of(field: dataclasses.Field) -> dict[str, str]:
    return labels(field.metadata["help"], field.metadata["unit"])

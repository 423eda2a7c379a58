"""The convention by which a run's Dataset, and its files, describe themselves.

Attributes of every data variable: long_name, units and kind, one of
    parameter   stored in params.safetensors, over the lanes
    curve       a term of the training loss, over the lanes and step
    measure     of held-out data, over the lanes
    status      what became of a lane, or what its samples are; over lanes or some of the axes
    task        added by an analysis task
    name        words that a task adds, such as of samples; over the lanes
    data        how samples were normalised, over some of the axes and input
Attributes of the Dataset: format; axes, a JSON list of the dimensions along which settings vary, in order; settings,
the names of all settings; and config, the model. The lanes' dimensions are the axes, then seed; each has a coordinate,
and so has every dimension of a parameter. Every setting is a coordinate too: along an axis where it varies, else one
value, so that xarray joins sweeps that differ in values. In earlier versions config held what did not vary, too.
A lane that nobody trained, in a hole of a union of sweeps, is NaN throughout.
An attribute parameters_of says that parameters were left out: best, they are over the axes without seed, and the
variable parameters_seed over the axes says of which seed; none, there are no parameters.
A variable of a name or a kind that this version does not know is kept as it is.
"""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from sae_jax.storage.record import KEEP

# One more where a reader of the earlier one would be wrong.
FORMAT = 2

SETTINGS = "settings"
PARAMETERS_OF, PARAMETERS_SEED = "parameters_of", "parameters_seed"

KINDS = ("parameter", "curve", "measure", "status", "task", "data")


def format_of(dataset: xr.Dataset) -> int:
    """The format that a Dataset declares; the first one was not always declared.

    Raises:
        ValueError: it is no format's number.
    """
    value = dataset.attrs.get("format", 1)
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"format {value!r}, which is no number of a format")
    return int(value)


def axes_of(dataset: xr.Dataset) -> list[str]:
    """The swept settings that a Dataset declares, in the order of its dimensions.

    Raises:
        ValueError: it declares none, not even an empty list.
    """
    axes = json.loads(dataset.attrs.get("axes", "null"))
    names = isinstance(axes, list) and all(isinstance(axis, str) for axis in axes)
    if not names or "seed" in axes or len(set(axes)) < len(axes):
        raise ValueError("an attribute axes that is no list of settings")
    return axes


def lane_dims(dataset: xr.Dataset) -> list[str]:
    """The dimensions of a Dataset's lanes but for seed, in order: those of what belongs to lanes, less its own."""
    other_dims = ("seed", "step", "unit", "input", "target", "snapshot")
    for kind in ("parameter", "measure", "curve"):
        for name in names_of_kind(dataset, kind):
            return [str(dim) for dim in dataset[name].dims if dim not in other_dims]
    return [str(dim) for dim in axes_of(dataset) if dim in dataset.dims]


def with_settings(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with every single value of its attribute config, where earlier versions put it, as a coordinate."""
    try:
        config = json.loads(dataset.attrs.get("config", "{}"))
    except (TypeError, ValueError, RecursionError):
        return dataset
    values = config.items() if isinstance(config, dict) else ()
    single = {name: value for name, value in values if isinstance(value, (bool, int, float, str)) and name != "model"}
    if not single or SETTINGS in dataset.attrs:
        return dataset
    labelled = {
        name: ((), value, {"long_name": name.replace("_", " "), "units": "1"})
        for name, value in single.items()
        if name not in dataset.variables and name not in dataset.dims
    }
    left = {name: value for name, value in values if name not in single}
    moved = {SETTINGS: json.dumps([*labelled])} if labelled else {}
    return dataset.assign_coords(labelled).assign_attrs({"config": json.dumps(left)} | moved)


def parameters_of(dataset: xr.Dataset) -> str:
    """Whose parameters a Dataset holds: one of KEEP.

    Raises:
        ValueError: it declares something else.
    """
    value = dataset.attrs.get(PARAMETERS_OF, "all")
    if value not in KEEP:
        raise ValueError(f"an attribute {PARAMETERS_OF} {value!r}, which is none of {', '.join(KEEP)}")
    return str(value)


def names_of_kind(dataset: xr.Dataset, kind: str) -> list[str]:
    """Names of the data variables of a kind, in the Dataset's order."""
    return [str(name) for name, variable in dataset.data_vars.items() if variable.attrs.get("kind") == kind]


def check_description(dataset: xr.Dataset) -> None:
    """Refuse a Dataset that does not keep to the convention; which variables there are is free.

    Args:
        dataset: results and parameters together.

    Raises:
        ValueError: it has no lanes, no parameters or nothing else, or a variable is not what it declares.
    """
    lanes = (*axes_of(dataset), "seed")
    for dim in lanes:
        if dim not in dataset.coords:
            raise ValueError(f"no coordinate {dim}")
    for name, variable in dataset.data_vars.items():
        _check_variable(str(name), variable, lanes, lanes[:-1] if parameters_of(dataset) == "best" else lanes)
    parameters = len(names_of_kind(dataset, "parameter"))
    if parameters == len(dataset.data_vars):
        raise ValueError("no variables but parameters" if parameters else "no variables")
    if bool(parameters) == (parameters_of(dataset) == "none"):
        raise ValueError("parameters, though none were kept" if parameters else "no parameters")
    if parameters_of(dataset) == "best" and (
        PARAMETERS_SEED not in dataset or dataset[PARAMETERS_SEED].dims != lanes[:-1]
    ):
        raise ValueError(f"parameters of one seed of every cell without {PARAMETERS_SEED}, which says of which")


def _check_variable(name: str, variable: xr.DataArray, lanes: tuple[str, ...], of_parameters: tuple[str, ...]) -> None:
    for attribute in ("long_name", "units", "kind"):
        if not isinstance(variable.attrs.get(attribute), str):
            raise ValueError(f"{name} without an attribute {attribute}")
    kind, dims = variable.attrs["kind"], tuple(map(str, variable.dims))
    if kind in KINDS and variable.dtype.kind not in "fiub":
        raise ValueError(f"{name} of {variable.dtype}, which are no numbers")
    lanes = of_parameters if kind == "parameter" else lanes
    of_lanes = kind in ("parameter", "curve", "measure") or "seed" in dims
    if of_lanes and dims[: len(lanes)] != lanes:
        raise ValueError(f"{name} over {', '.join(dims) or 'nothing'}, not over {', '.join(lanes)} first")
    if kind == "status" and not set(dims) <= set(lanes):
        raise ValueError(f"{name} over {', '.join(dims)}, not over {', '.join(lanes)} alone")
    if kind == "curve" and "step" not in dims:
        raise ValueError(f"{name}, a curve, over {', '.join(dims)} without step")
    if kind == "parameter":
        for dim in dims:
            if dim not in variable.coords:
                raise ValueError(f"{name} over {dim}, which has no coordinate")

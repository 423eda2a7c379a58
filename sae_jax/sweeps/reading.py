"""A labelled Dataset, back to the grid whose lanes it holds; whoever selected, joined or transposed it meanwhile."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.data.config import DataConfig
from sae_jax.data.normalise import STORED, Normalisation, from_arrays, of_targets
from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, check, check_type, settings_of, unknown
from sae_jax.storage import plugin_list
from sae_jax.storage.description import SETTINGS, lane_dims
from sae_jax.sweeps.dataset import SUMMARY, attributes, grid_coordinates
from sae_jax.sweeps.grid import Grid, along_models, checked, checked_seeds, fields_of
from sae_jax.sweeps.used_parts import check_plugins, unneeded, used_by
from sae_jax.training.config import before_named, check_given

OF_LANES = ("parameter", "curve", "measure")
ENDS = ("diverged_at", "stopped_at")


def check_results(dataset: Any) -> None:
    """Refuse what is no Dataset that a sweep returned.

    Raises:
        UserError: it is none.
    """
    ours = "use what sae_jax.sweep returned, or sae_jax.results.load(FOLDER)"
    check_type("dataset", dataset, xr.Dataset, "an xarray.Dataset", ours)
    try:
        lane_dims(dataset)
    except (TypeError, ValueError) as error:
        raise UserError(f"dataset must be the results of a sweep: got {error}; {ours}") from None


def arranged(dataset: xr.Dataset) -> xr.Dataset:
    """The Dataset with the lanes' dimensions in front, then seed, also where a single seed was selected.

    Raises:
        UserError: it is none of a sweep.
    """
    check_results(dataset)
    if "seed" in dataset.coords and "seed" not in dataset.dims:
        names = [name for name, one in dataset.data_vars.items() if one.attrs.get("kind") in OF_LANES or name in ENDS]
        dataset = dataset.assign({name: dataset[name].expand_dims("seed") for name in names})
    return dataset.transpose(*lane_dims(dataset), "seed", ..., missing_dims="ignore")


def grid_of(dataset: xr.Dataset, model: Model | None = None) -> Grid:
    """The grid whose lanes a Dataset holds, from its coordinates.

    Args:
        dataset: of a sweep, or parts of several.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the Dataset holds no such settings, or some that are refused.
    """
    config = recorded(dataset, "config", dict)
    check_plugins(dataset, ("model", "term", "source"), model is not None)
    model = model_of(
        config.get("model", "classic") if model is None else model
    )  # Before models had names there was one.
    fields, dims = fields_of(model), lane_dims(dataset)
    constant = constants_of(dataset, fields)
    optimizer = dataset.coords.get("optimizer", constant.get("optimizer", fields["optimizer"].default))
    unnamed = before_named(fields, map(str, np.ravel(optimizer)))
    for dim in recorded(dataset, "axes", list):
        if dim not in dataset.coords:
            raise UserError(f"results must keep the coordinates of what varied: got none of {dim}; select without drop")
    axes: dict[str, tuple[Any, ...]] = {}
    fixed: dict[str, Any] = {}
    along: dict[str, list[str]] = {dim: [] for dim in dims}
    for name, field in fields.items():
        values = dataset.coords.get(name)
        if values is not None and values.dims:
            if len(values.dims) > 1 or values.dims[0] not in along:
                got = ", ".join(map(str, values.dims))
                raise UserError(
                    f"results must hold {name} along one dimension of the lanes: got {got}; select or merge"
                )
            axes[name] = tuple(check(field, value) for value in values.values.tolist())
            along[str(values.dims[0])].append(name)
        else:
            fixed[name] = check(field, constant.get(name, unnamed[name]))
    for dim, names in along.items():
        if not names:
            raise UserError(f"results must name the settings along every dimension: got none along {dim}; add them")
        names.sort(key=dim.__ne__)  # The one that the dimension is named after stands first.
    check_coordinates(dataset)
    if "seed" not in dataset.coords:
        raise UserError("results must name the seeds they were trained with: got none; train them again")
    of_data = {name: fixed.pop(name) for name in settings_of(DataConfig) if name in fixed}
    seeds = checked_seeds(np.atleast_1d(dataset["seed"].values).tolist())
    ordered = {name: axes[name] for names in along.values() for name in names}
    grid = Grid(
        model, DataConfig(**of_data), fixed, ordered, {dim: tuple(names) for dim, names in along.items()}, seeds
    )
    present_lanes = present(dataset)
    checked(grid, None if present_lanes is None else present_lanes.any("seed").transpose(*grid.dims).values)
    units = max(settings.model.d_hidden for _, settings, _ in grid.programs())
    if dataset.sizes.get("unit", 0) < units:
        raise UserError(
            f"results must have as many units as their own settings, {units}: got {dataset.sizes.get('unit', 0)}; "
            "train them again"
        )
    return grid


def constants_of(dataset: xr.Dataset, fields: Collection[str]) -> dict[str, Any]:
    """The model, and every setting that does not vary: coordinates, and what earlier versions put in config alone.

    Args:
        dataset: of a sweep, or parts of several.
        fields: the names of all settings that the model knows.

    Raises:
        UserError: a setting is unknown.
    """
    config = recorded(dataset, "config", dict)
    passed_over = {"model", "seeds"} | unneeded(dataset, fields)
    for name in (*config, *_settings_at_first(dataset)):
        if name not in fields and name not in passed_over:
            raise unknown("setting", name, fields)
    single = [name for name in fields if name in dataset.coords and not dataset.coords[name].dims]
    return config | {name: dataset.coords[name].item() for name in single}


def check_coordinates(dataset: xr.Dataset) -> None:
    """Refuse a Dataset of which coordinates have been dropped: defaults would be taken for what they were.

    Raises:
        UserError: one is missing.
    """
    for name in _settings_at_first(dataset):
        if name not in dataset.coords:
            raise UserError(f"results must keep the coordinates of settings: got none of {name}; select without drop")


def _settings_at_first(dataset: xr.Dataset) -> list[str]:
    """The settings that a Dataset was made with; earlier versions did not say."""
    return list(map(str, recorded(dataset, SETTINGS, list))) if SETTINGS in dataset.attrs else []


def settings_beside(grid: Grid, settings: Mapping[str, Any], zip: Sequence[str] | None) -> dict[str, Any]:
    """The settings of another grid, and what it pairs: those of an earlier one, but for those that are given.

    Raises:
        UserError: the earlier grid pairs settings along several dimensions, or a setting is given that nothing reads.
    """
    check_given(settings)
    # Defaults that differ between models come along with these, and are no pairs of anybody's.
    along = along_models(grid.model)
    model_defaults = {name for name, values in along.items() if grid.axes.get(name) == values and name not in settings}
    axes = {name: values for name, values in grid.axes.items() if name not in model_defaults}
    along_dims = [tuple(name for name in names if name in axes) for names in grid.dims.values()]
    pairs = [names for names in along_dims if len(names) > 1]
    if zip is None and len(pairs) > 1:
        raise UserError(
            "settings must be paired along one dimension to go on from a sweep: got "
            f"{' and '.join(map('_'.join, pairs))}; select a part"
        )
    paired = zip if zip is not None else pairs[0] if pairs else ()
    return {**axes, **grid.constant, **settings, "zip": paired}


def described(dataset: xr.Dataset, grid: Grid) -> xr.Dataset:
    """The Dataset with its grid's attributes: those of its parts are not, after a selection or a union.

    Settings that an earlier version did not have become coordinates.
    """
    added = {name: values for name, values in grid_coordinates(grid).items() if name not in dataset.variables}
    title = {"title": dataset.attrs.get("title", "")}
    plugins = plugin_list.joined(plugin_list.recorded(dataset), used_by(grid))
    named = {plugin_list.ATTRIBUTE: json.dumps(plugins)} if plugins else {}
    return dataset.assign_coords(added).assign_attrs(title | attributes(grid) | named)


def present(dataset: xr.Dataset) -> xr.DataArray | None:
    """Which lanes there are, over the lanes' dimensions and seed, where some are not; None where all are.

    A union of sweeps may have holes: lanes that nobody trained. All that they would hold is NaN.
    """
    if "diverged_at" not in dataset or "seed" not in dataset["diverged_at"].dims:
        return None
    present_lanes = dataset["diverged_at"].notnull()
    return None if bool(present_lanes.all()) else present_lanes.drop_attrs()


def summaries(dataset: xr.Dataset, program: int) -> list[Any]:
    """By what the samples of a program are known again.

    Args:
        dataset: the program's part of a Dataset.
        program: its number, where the Dataset has its summaries as an attribute, as earlier versions wrote them.
    """
    if SUMMARY not in dataset.coords:
        return recorded(dataset, "data", list)[program : program + 1]
    texts = np.unique(dataset[SUMMARY].values.astype(str).ravel())
    return [_parsed(text) for text in texts.tolist() if text not in ("", "nan")]


def stored_normalisation(part: xr.Dataset) -> Normalisation | None:
    """What was done to the samples of a program, from its part of a Dataset; None where that is not stored.

    Where sweeps were joined, xarray repeats it along what they were joined along.
    """
    inputs = [name for name, _, _ in STORED.values()]
    stored = {name: _repeated(part[name]) for name in (*inputs, *map(of_targets, inputs)) if name in part}
    values = {name: one for name, one in stored.items() if one is not None}

    def width(names: Iterable[str]) -> int:
        return next((int((~np.isnan(values[name])).sum()) for name in names if name in values and values[name].ndim), 0)

    return from_arrays(values, width(inputs), width(map(of_targets, inputs)))


def _repeated(values: xr.DataArray) -> np.ndarray | None:
    """What an array repeats along all dimensions but its own, holes aside; None where it does not."""
    inputs = [dim for dim in values.dims if dim in ("input", "target")]
    rows = values.transpose(..., *inputs).values.reshape(-1, *(values.sizes[dim] for dim in inputs))
    rows = rows[~np.isnan(rows).reshape(len(rows), -1).all(axis=1)]
    return (
        np.asarray(rows[0]) if len(rows) and all(np.array_equal(rows[0], row, equal_nan=True) for row in rows) else None
    )


def alike(summary: list[float | str], expected: Any, exactly: bool = False) -> bool:
    """Whether two summaries of samples agree.

    Args:
        summary, expected: as `Data.summary` returns them; the second one may be anything.
        exactly: to the last digit; else but for what rounding differs between machines. A digest that only one of them
            has, as earlier versions wrote none, says nothing.
    """
    if not isinstance(expected, list):
        return False
    (numbers, digests), (others, theirs) = (
        ([one for one in some if isinstance(one, float)], [one for one in some if isinstance(one, str)])
        for some in (summary, expected)
    )
    if len(others) + len(theirs) < len(expected) or (digests and theirs and digests != theirs):
        return False
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-4, "atol": 1e-6}
    return len(others) == len(numbers) and bool(np.allclose(numbers, others, **tolerance))


def recorded(dataset: xr.Dataset, name: str, kind: type) -> Any:
    """An attribute of a Dataset that was written as JSON.

    Raises:
        UserError: it is none.
    """
    value = _parsed(dataset.attrs.get(name))
    if not isinstance(value, kind):
        raise UserError(
            f"results must name the settings they were trained with: got an attribute {name} that is not readable; "
            "train them again"
        )
    return value


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None

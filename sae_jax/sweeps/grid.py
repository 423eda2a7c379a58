"""The axes of a sweep: which settings vary, over which values, and what they mean for programs and lanes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.data.checks import as_array
from sae_jax.data.config import DataConfig
from sae_jax.models import Model, model_of, refuse_overridden
from sae_jax.models.several import defaults_of
from sae_jax.settings import UserError, as_json, check, is_swept, received, settings_of, unknown
from sae_jax.training.config import (
    LaneSettings,
    TrainingSettings,
    check_settings,
    declared,
    defaults_beside,
    from_values,
    lane_at,
)

MOST_SEEDS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep's settings: every combination of places along its dimensions, for every seed.

    Attributes:
        model: what is trained.
        data: settings of the samples where they do not vary; `programs` gives those of every program.
        fixed: value of every setting of model and training that does not vary.
        axes: values of every setting that varies, in the order given.
        dims: the result's dimensions before seed, in order: of each the settings that vary along it, mostly the one
            that it is named after, and several where their values are paired.
        seeds: seeds of every cell.
    """

    model: Model
    data: DataConfig
    fixed: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    dims: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]

    @property
    def labels(self) -> dict[str, tuple[Any, ...]]:
        """What tells the places along every dimension apart: a setting's values, or paired ones in words."""
        return {dim: self.axes[dim] if dim in names else self._words(names) for dim, names in self.dims.items()}

    def _words(self, names: Sequence[str]) -> tuple[str, ...]:
        columns = ([f"{one:.9g}" if isinstance(one, float) else str(one) for one in self.axes[name]] for name in names)
        return tuple(map(", ".join, zip(*columns, strict=True)))

    @property
    def lane_dims(self) -> dict[str, int]:
        """Dimensions inside one compiled program, with their sizes."""
        fields, labels = fields_of(self.model), self.labels
        return {
            dim: len(labels[dim]) for dim, names in self.dims.items() if all(is_swept(fields[name]) for name in names)
        }

    @property
    def program_dims(self) -> dict[str, int]:
        """Dimensions that need a compiled program, or a data set, for each place, with their sizes."""
        return {dim: len(labels) for dim, labels in self.labels.items() if dim not in self.lane_dims}

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each lane dimension, then the number of seeds."""
        return (*self.lane_dims.values(), len(self.seeds))

    def programs(self) -> Iterator[tuple[dict[str, Any], LaneSettings, DataConfig]]:
        """Every combination of places along the program dimensions with the settings that it stands for.

        Returns:
            One after another (labels on the program dimensions, settings of all of its cells, whose swept leaves are
            float32 [cells], the last dimension fastest, settings of its samples).
        """
        sizes, labels, fields = self.lane_dims, self.labels, declared(self.model)
        places = dict(zip(sizes, np.indices(tuple(sizes.values())), strict=True))
        cells = {name: np.asarray(self.axes[name])[places[dim]] for dim in sizes for name in self.dims[dim]}
        for index in itertools.product(*map(range, self.program_dims.values())):
            where = dict(zip(self.program_dims, index, strict=True))
            values = {name: self.axes[name][place] for dim, place in where.items() for name in self.dims[dim]}
            shape = tuple(sizes.values())
            every = {
                name: np.broadcast_to(np.float32(value), shape).reshape(-1) if is_swept(fields[name]) else value
                for name, value in {**self.fixed, **values, **cells}.items()
                if name in fields
            }
            of_data = {name: value for name, value in values.items() if name not in fields}
            point = {dim: labels[dim][place] for dim, place in where.items()}
            yield point, from_values(self.model, every), dataclasses.replace(self.data, **of_data)

    def position(self, point: Mapping[str, Any], cells: np.ndarray) -> tuple[Any, ...]:
        """Where cells of a program stand in an array whose leading dimensions are those of the grid.

        Args:
            point: the program's labels on the program dimensions.
            cells: positions among the program's cells, as `programs` orders them, [cells].

        Returns:
            An index for each dimension: a number on a program dimension, [cells] on a lane dimension.
        """
        labels, sizes = self.labels, self.lane_dims
        index: dict[str, Any] = {dim: labels[dim].index(label) for dim, label in point.items()}
        index |= zip(sizes, np.unravel_index(cells, tuple(sizes.values())) if sizes else (), strict=True)
        return tuple(index[dim] for dim in self.dims)

    def cells(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """Every cell, the last dimension fastest: its places along the dimensions, and the value of every setting."""
        for index in np.ndindex(*map(len, self.labels.values())):
            places = dict(zip(self.dims, index, strict=True))
            varying = {name: self.axes[name][places[dim]] for dim, names in self.dims.items() for name in names}
            yield index, self.constant | varying

    def as_json(self) -> dict[str, Any]:
        """Every setting of the sweep as plain values: a list where it varies."""
        varying = {name: list(axis) for name, axis in self.axes.items()}
        every = {name: varying.get(name, self.constant.get(name)) for name in fields_of(self.model)}
        return {"model": self.model.name} | every | {"seeds": list(self.seeds)}

    @property
    def constant(self) -> dict[str, Any]:
        """Value of every setting that does not vary, those of the samples too."""
        values = {**self.fixed, **as_json(self.data)}
        return {name: values[name] for name in fields_of(self.model) if name in values and name not in self.axes}


def fields_of(model: Model) -> dict[str, dataclasses.Field]:
    """The declarations of all settings that a sweep of a model may vary, by name.

    Raises:
        UserError: the model declares a name that the training or the data have.
    """
    others = settings_of(TrainingSettings) | settings_of(DataConfig)
    twice = sorted(set(settings_of(model.Settings)) & set(others))
    if twice:
        raise UserError(
            f"a model's setting must have a name of its own: got {twice[0]} of model {model.name}, which the training "
            "or the data have; rename it"
        )
    return declared(model) | settings_of(DataConfig)


def make_grid(
    model: Model | str | Sequence[Model | str],
    data: DataConfig,
    seeds: int | Sequence[int],
    settings: Mapping[str, Any],
    zip: Sequence[str] = (),
) -> Grid:
    """Check settings and sort them into axes and fixed values.

    Args:
        model: the record of the model, or its name.
        data: what the settings do not say of the samples.
        seeds: a number N for 0..N-1, or the seeds themselves.
        settings: by name a value, or a sequence of values for an axis.
        zip: settings whose values are paired, the first of each with the first of the others, not crossed.

    Raises:
        UserError: a name is unknown, a value is out of range or given twice, or values do not go together.
    """
    model = model_of(model)
    refuse_overridden(model, settings)
    fields = fields_of(model)
    settings, along = _of_models(model, settings)
    axes: dict[str, tuple[Any, ...]] = {}
    single: dict[str, Any] = {}
    for name, given in settings.items():
        if name not in fields:
            raise unknown("setting", name, fields)
        field = fields[name]
        several = _several(name, given)
        if several is not None:
            values = tuple(check(field, value) for value in several)
            if not values:
                raise UserError(f"{name} needs at least one value: got none; leave it out for its default")
            axes[name] = values
        else:
            single[name] = check(field, given)
    of_data = {name: value for name, value in single.items() if name in settings_of(DataConfig)}
    given = {**axes, **single}
    of_lanes = {**defaults_beside(model, given), **single}
    dims = _dimensions(axes, zip, fields)
    axes |= along
    dims = {dim: (*names, *along) if "model" in names else names for dim, names in dims.items()}
    fixed = {name: of_lanes[name] for name in declared(model) if name not in axes}
    return checked(Grid(model, dataclasses.replace(data, **of_data), fixed, axes, dims, checked_seeds(seeds)))


def _of_models(model: Model, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, tuple[Any, ...]]]:
    """Settings with the axis of several models, and what lies along it: defaults that differ between the models."""
    if not model.choices or "model" in settings:
        return settings, {}
    along = {name: values for name, values in along_models(model).items() if name not in settings}
    return {"model": [one.name for one in model.choices], **settings}, along


def along_models(model: Model) -> dict[str, tuple[Any, ...]]:
    """Of several models, the values of settings whose defaults differ between them; of one none."""
    training = {name: field.default for name, field in settings_of(TrainingSettings).items()}
    return defaults_of(model, training) if model.choices else {}


def _several(name: str, given: Any) -> list[Any] | None:
    """The values of a list, a tuple, a range or an array; None where it is a single value."""
    if isinstance(given, (list, tuple, range)):
        return list(given)
    return as_array(given, name).tolist() if getattr(given, "ndim", 0) else None


def checked(grid: Grid, present: np.ndarray | None = None) -> Grid:
    """The grid, every combination of its settings checked before the first one is trained.

    Args:
        grid: to check.
        present: which of its cells there are, over its dimensions; None is all.

    Raises:
        UserError: a dimension names a place twice, or values do not go together.
    """
    for dim, labels in grid.labels.items():
        if len(set(labels)) < len(labels):
            what = (
                f"{dim} must not name a value twice" if dim in grid.dims[dim] else f"zip {dim} must not name one twice"
            )
            raise UserError(f"{what}: got {', '.join(map(str, labels))}; leave one")
    cells = np.arange(int(np.prod(grid.shape[:-1], dtype=int)))
    for point, lanes, _ in grid.programs():
        some = cells if present is None else cells[np.broadcast_to(present[grid.position(point, cells)], cells.shape)]
        if some.size:
            check_settings(lane_at(lanes, some))
    return grid


def _dimensions(
    axes: Mapping[str, tuple[Any, ...]], zip: Sequence[str], fields: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """The dimensions of axes, those paired as one at the place of the first of them."""
    paired = _several("zip", zip)
    if paired is None or not all(isinstance(name, str) for name in paired):
        raise UserError(f"zip must be a list of names of settings: got {received(zip)}; use zip=['rho', 'beta']")
    if paired and (len(set(paired)) < max(len(paired), 2)):
        raise UserError(f"zip must name several settings, each once: got {', '.join(paired)}; name those to pair")
    for name in paired:
        if name not in fields:
            raise unknown("setting", name, fields)
        if name not in axes:
            raise UserError(f"zip pairs settings of several values: got {name}, which has one; give it several")
    if len({len(axes[name]) for name in paired}) > 1:
        counts = ", ".join(f"{len(axes[name])} of {name}" for name in paired)
        raise UserError(f"zip pairs settings of as many values: got {counts}; give each as many")
    dims: dict[str, tuple[str, ...]] = {}
    together = tuple(name for name in axes if name in paired)
    for name in axes:
        dims |= {"_".join(together): together} if name in together else {name: (name,)}
    for dim, names in dims.items():
        if len(names) > 1 and dim in fields:
            raise UserError(
                f"zip must not make a name of another setting: got {dim}; give {names[-1]} before {names[0]}"
            )
    return dims


def checked_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds that a number of them, or a list, stands for.

    Raises:
        UserError: they are no seeds, or one is there twice.
    """
    several = _several("seeds", seeds)
    if several is None:
        if not _whole(seeds) or not 1 <= seeds <= MOST_SEEDS:  # type: ignore[operator]
            raise UserError(
                f"seeds must be a number in [1, {MOST_SEEDS}], or a list of seeds: got {received(seeds)}; "
                "4 is the usual number"
            )
        return tuple(range(int(seeds)))  # type: ignore[arg-type]
    whole = all(_whole(seed) and 0 <= seed < 2**32 for seed in several)
    if not whole or not several or len(set(several)) < len(several):
        given = ", ".join(map(received, several)) or "none"
        raise UserError(f"seeds must be different whole numbers in [0, 2^32): got {given}; use 0, 1, 2 and so on")
    return tuple(int(seed) for seed in several)


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)

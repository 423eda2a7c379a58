"""The axes of a sweep: which settings vary, over which values, and what they mean for programs and lanes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.data.config import DataConfig
from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, as_json, check, is_swept, settings_of, unknown
from sae_jax.training.config import LaneSettings, check_settings, declared, from_values

MOST_SEEDS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep's settings: every combination of the axes' values, for every seed.

    Attributes:
        model: what is trained.
        data: settings of the samples of the first program; `programs` gives the others.
        fixed: value of every setting of model and training that does not vary.
        axes: values of every setting that varies, in the order given.
        seeds: seeds of every cell.
    """

    model: Model
    data: DataConfig
    fixed: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]

    @property
    def lane_axes(self) -> dict[str, tuple[Any, ...]]:
        """Axes inside one compiled program."""
        return {name: values for name, values in self.axes.items() if is_swept(fields_of(self.model)[name])}

    @property
    def program_axes(self) -> dict[str, tuple[Any, ...]]:
        """Axes that need a compiled program, or a data set, for each value."""
        return {name: values for name, values in self.axes.items() if name not in self.lane_axes}

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values on each lane axis, then the number of seeds."""
        return (*map(len, self.lane_axes.values()), len(self.seeds))

    def programs(self) -> Iterator[tuple[dict[str, Any], LaneSettings, DataConfig]]:
        """Every combination of the program axes with the settings that it stands for.

        Returns:
            One after another (values on the program axes, settings of all of its cells, whose swept leaves are float32
            [cells], the last axis fastest, settings of its samples).
        """
        shape = self.shape[:-1]
        cells = dict(zip(self.lane_axes, np.meshgrid(*self.lane_axes.values(), indexing="ij"), strict=True))
        fields = declared(self.model)
        for values in itertools.product(*self.program_axes.values()):
            point = dict(zip(self.program_axes, values, strict=True))
            every = {
                name: np.broadcast_to(np.float32(value), shape).reshape(-1) if is_swept(fields[name]) else value
                for name, value in {**self.fixed, **point, **cells}.items()
                if name in fields
            }
            of_data = {name: value for name, value in point.items() if name not in fields}
            yield point, from_values(self.model, every), dataclasses.replace(self.data, **of_data)

    def position(self, point: Mapping[str, Any], cells: np.ndarray) -> tuple[Any, ...]:
        """Where cells of a program stand in an array whose leading dimensions are the axes in the order given.

        Args:
            point: the program's values on the program axes.
            cells: positions among the program's cells, as `programs` orders them, [cells].

        Returns:
            An index for each axis: a number on a program axis, [cells] on a lane axis.
        """
        program: dict[str, Any] = {name: self.axes[name].index(value) for name, value in point.items()}
        lanes = np.unravel_index(cells, self.shape[:-1]) if self.lane_axes else ()
        index = program | dict(zip(self.lane_axes, lanes, strict=True))
        return tuple(index[name] for name in self.axes)

    def as_json(self) -> dict[str, Any]:
        """Every setting of the sweep as plain values: a list where it varies."""
        values = {**self.fixed, **as_json(self.data)}
        varying = {name: list(axis) for name, axis in self.axes.items()}
        every = {name: varying.get(name, values.get(name)) for name in fields_of(self.model)}
        return {"model": self.model.name} | every | {"seeds": list(self.seeds)}


def fields_of(model: Model) -> dict[str, dataclasses.Field]:
    """The declarations of all settings that a sweep of a model may vary, by name."""
    return declared(model) | settings_of(DataConfig)


def make_grid(model: Model | str, data: DataConfig, seeds: int | Sequence[int], settings: Mapping[str, Any]) -> Grid:
    """Check settings and sort them into axes and fixed values.

    Args:
        model: the record of the model, or its name.
        data: what the settings do not say of the samples.
        seeds: a number N for 0..N-1, or the seeds themselves.
        settings: by name a value, or a sequence of values for an axis.

    Raises:
        UserError: a name is unknown, a value is out of range or given twice, or values do not go together.
    """
    model = model_of(model) if isinstance(model, str) else model
    fields = fields_of(model)
    axes: dict[str, tuple[Any, ...]] = {}
    single: dict[str, Any] = {}
    for name, given in settings.items():
        if name not in fields:
            raise unknown("setting", name, fields)
        field = fields[name]
        if isinstance(given, (list, tuple, np.ndarray, range)):
            values = tuple(check(field, value) for value in given)
            if not values:
                raise UserError(f"{name} needs at least one value: got none; leave it out for its default")
            if len(set(values)) < len(values):
                raise UserError(f"{name} must not name a value twice: got {', '.join(map(str, values))}; leave one")
            axes[name] = values
        else:
            single[name] = check(field, given)
    of_data = {name: value for name, value in single.items() if name in settings_of(DataConfig)}
    fixed = {name: single.get(name, field.default) for name, field in declared(model).items() if name not in axes}
    grid = Grid(model, dataclasses.replace(data, **of_data), fixed, axes, _checked_seeds(seeds))
    for _, lanes, _ in grid.programs():  # Every combination is checked before the first one is trained.
        check_settings(lanes)
    return grid


def _checked_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, (int, np.integer)):
        if not 1 <= seeds <= MOST_SEEDS:
            raise UserError(
                f"seeds must be a number in [1, {MOST_SEEDS}], or a list of seeds: got {seeds}; 4 is the usual number"
            )
        return tuple(range(int(seeds)))
    whole = all(isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32 for seed in seeds)
    if not whole or not len(seeds) or len(set(seeds)) < len(seeds):
        given = ", ".join(map(str, seeds)) or "none"
        raise UserError(f"seeds must be different whole numbers in [0, 2^32): got {given}; use 0, 1, 2 and so on")
    return tuple(int(seed) for seed in seeds)

"""The axes of a sweep: which settings vary, over which values, and what they mean for programs and lanes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.data.config import DataConfig
from sae_jax.models.types import Hyperparameters, without_unused
from sae_jax.settings import UserError, check, settings_of, unknown
from sae_jax.training.config import Config

HYPER = settings_of(Hyperparameters)
STATIC = settings_of(Config)
DATA = settings_of(DataConfig)
ALL_SETTINGS = HYPER | STATIC | DATA

MOST_SEEDS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep's settings: every combination of the axes' values, for every seed.

    Attributes:
        config, data: settings of the first program; `programs` gives the others.
        fixed: value of every hyperparameter that does not vary.
        axes: values of every setting that varies, in the order given.
        seeds: seeds of every cell.
    """

    config: Config
    data: DataConfig
    fixed: Mapping[str, float]
    axes: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]

    @property
    def lane_axes(self) -> dict[str, tuple[Any, ...]]:
        """Axes inside one compiled program."""
        return {name: values for name, values in self.axes.items() if name in HYPER}

    @property
    def program_axes(self) -> dict[str, tuple[Any, ...]]:
        """Axes that need a compiled program, or a data set, for each value."""
        return {name: values for name, values in self.axes.items() if name not in HYPER}

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values on each lane axis, then the number of seeds."""
        return (*map(len, self.lane_axes.values()), len(self.seeds))

    def programs(self) -> Iterator[tuple[dict[str, Any], Config, DataConfig]]:
        """Every combination of the program axes with the settings it stands for."""
        for values in itertools.product(*self.program_axes.values()):
            point = dict(zip(self.program_axes, values, strict=True))
            config = dataclasses.replace(self.config, **{k: v for k, v in point.items() if k in STATIC})
            yield point, config, dataclasses.replace(self.data, **{k: v for k, v in point.items() if k in DATA})

    def position(self, point: Mapping[str, Any], cells: np.ndarray) -> tuple[Any, ...]:
        """Where cells of a program stand in an array whose leading dimensions are the axes in the order given.

        Args:
            point: the program's values on the program axes.
            cells: positions among the program's cells, as `cells` orders them, [cells].

        Returns:
            An index for each axis: a number on a program axis, [cells] on a lane axis.
        """
        program: dict[str, Any] = {name: self.axes[name].index(value) for name, value in point.items()}
        lanes = np.unravel_index(cells, self.shape[:-1]) if self.lane_axes else ()
        found = program | dict(zip(self.lane_axes, lanes, strict=True))
        return tuple(found[name] for name in self.axes)

    def cells(self) -> Hyperparameters:
        """Hyperparameters of every cell, each leaf float32 [cells], the last axis fastest.

        What is OPTIONAL and 0 in every cell is None: the program is compiled without it.
        """
        shape = self.shape[:-1]
        swept = np.meshgrid(*self.lane_axes.values(), indexing="ij")
        values = dict(self.fixed) | dict(zip(self.lane_axes, swept, strict=True))
        leaves = {name: np.broadcast_to(np.float32(values[name]), shape).reshape(-1) for name in HYPER}
        return without_unused(Hyperparameters(**leaves))


def make_grid(config: Config, data: DataConfig, seeds: int | Sequence[int], settings: Mapping[str, Any]) -> Grid:
    """Check settings and sort them into axes and fixed values.

    Args:
        config, data: what the settings do not say.
        seeds: a number N for 0..N-1, or the seeds themselves.
        settings: by name a value, or a sequence of values for an axis.

    Raises:
        UserError: a name is unknown, a value is out of range or given twice, or values do not go together.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    fixed: dict[str, Any] = {}
    for name, given in settings.items():
        if name not in ALL_SETTINGS:
            raise unknown("setting", name, ALL_SETTINGS)
        field = ALL_SETTINGS[name]
        if isinstance(given, (list, tuple, np.ndarray, range)):
            values = tuple(check(field, value) for value in given)
            if not values:
                raise UserError(f"{name} needs at least one value: got none; leave it out for its default")
            if len(set(values)) < len(values):
                raise UserError(f"{name} must not name a value twice: got {', '.join(map(str, values))}; leave one")
            axes[name] = values
        else:
            fixed[name] = check(field, given)
    config = dataclasses.replace(config, **{name: value for name, value in fixed.items() if name in STATIC})
    data = dataclasses.replace(data, **{name: value for name, value in fixed.items() if name in DATA})
    defaults: dict[str, Any] = {name: field.default for name, field in HYPER.items()}
    numbers = defaults | {name: value for name, value in fixed.items() if name in HYPER}
    grid = Grid(config, data, {k: v for k, v in numbers.items() if k not in axes}, axes, _checked_seeds(seeds))
    list(grid.programs())  # Every combination is checked before the first one is trained.
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

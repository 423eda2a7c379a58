"""A sweep whose input has been checked, with its data, and how its lanes are packed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from sae_jax.settings import UserError, settings_of
from sae_jax.sweeps.grid import Grid, fields_of
from sae_jax.sweeps.plan import Engine, count, repacked
from sae_jax.sweeps.program import Point, Program
from sae_jax.training.config import before_named


class Earlier(NamedTuple):
    """A finished sweep that another one goes on from: its lanes are taken as they are, or trained on.

    Attributes:
        dataset: its results, as `arranged`.
        grid: what it was trained over.
        name: for messages.
        states: what its lanes carried after their last step, by `state_name`, [cells of the program, seeds, ...]; empty
            where that was not kept.
        cells_per_block: how its lanes were packed; 0 where that is not known, or differed.
        dictionary: whether it is a dictionary of others as one lane, from which lanes of every seed start.
    """

    dataset: xr.Dataset
    grid: Grid
    name: str
    states: Mapping[str, np.ndarray]
    cells_per_block: int = 0
    dictionary: bool = False


class Study(NamedTuple):
    """A sweep whose input has been checked: nothing but the arithmetic is left to do.

    Attributes:
        grid: what was asked for.
        points: what each combination of its program dimensions trains.
        programs: the lanes that are trained.
        equal: cells, numbered as `Grid.cells` gives them, whose lanes are those of another cell: {cell: the other}.
        known: number of the earlier sweep's lane that is taken, [cells, seeds]; -1 where there is none.
        devices: what they are trained on.
        earlier: the sweep that this one extends; None begins a new one.
        origin: the sweep whose lanes those of this one start from; None starts all at random.
    """

    grid: Grid
    points: list[Point]
    programs: list[Program]
    equal: dict[int, int]
    known: np.ndarray
    devices: list[jax.Device]
    earlier: Earlier | None = None
    origin: Earlier | None = None


def check_states_end(study: Study) -> None:
    """Refuse to keep the states of lanes whose parameters are not those of their last step.

    Raises:
        UserError: lanes may stop early.
    """
    for point in study.points:
        if point.settings.training.patience:
            raise UserError(
                f"keep_state needs lanes that end at their last step: got patience {point.settings.training.patience}, "
                "which keeps earlier parameters; leave one of them out"
            )


def unnamed(study: Study) -> dict[str, Any]:
    """What every setting was in a run of the same sweep by an earlier version, wherever its record does not name it."""
    optimizers = study.grid.axes.get("optimizer") or [study.grid.constant["optimizer"]]
    return before_named(settings_of(Engine) | fields_of(study.grid.model), optimizers)


def packing(study: Study) -> list[tuple[int, int]]:
    """How each program's lanes are packed: (cells_per_block, blocks_per_group); results depend on it in their bits."""
    return [(program.plan.cells_per_block, program.plan.blocks_per_group) for program in study.programs]


def trained_lanes(study: Study) -> str:
    """A digest of the lanes that each program trains, which a checkpoint numbers: other versions may train others."""
    lanes = [(one.point, one.cells.tolist(), one.seeds.tolist()) for one in study.programs]
    return hashlib.sha256(json.dumps(lanes).encode()).hexdigest()


def packed_as(study: Study, sizes: Sequence[Sequence[int]]) -> Study:
    """The same study with its lanes packed as `packing` said before."""
    if len(sizes) != len(study.programs):
        raise UserError(
            f"cannot resume: the run has {count(len(sizes), 'program')}, this sweep has {len(study.programs)}; "
            "choose another --name"
        )
    programs = [
        program._replace(plan=repacked(program.plan, *size))
        for program, size in zip(study.programs, sizes, strict=True)
    ]
    return study._replace(programs=programs)

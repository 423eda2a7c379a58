"""All lanes of one program on its devices: their samples, settings and keys, and where they start."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax.data.statistics import statistics_of
from sae_jax.sweeps.devices import lane_mesh, place, place_keys, release_programs
from sae_jax.sweeps.pace import WATCHED_ROWS
from sae_jax.sweeps.plan import Chunk
from sae_jax.sweeps.program import Carry, Point, Program, compiled_start, settings_in_training
from sae_jax.sweeps.start import started
from sae_jax.sweeps.study import Study
from sae_jax.training.config import TrainingSettings, lane_at

# Of a chunk's lanes on the devices: their settings, leaves [blocks, cells_per_block], and their blocks' keys, [blocks].
Inputs = tuple[Any, Array]


class Lanes(NamedTuple):
    """All lanes of one program, with its samples on all of its devices.

    Attributes:
        study: the sweep.
        number: of the program.
        block: what batches are drawn from, where that is the same at all steps; else None.
        heldout: samples.
        watched: those of them that lanes are measured on while they are trained; None where nobody watches.
        mesh: the devices.
        statistics: of the samples by name, that parameters start from.
        keep_state: whether what they carry after their last step is a result, too.
    """

    study: Study
    number: int
    block: Any
    heldout: Array
    watched: Array | None
    mesh: Mesh
    statistics: dict[str, Array]
    keep_state: bool = False

    @property
    def program(self) -> Program:
        """Which lanes they are."""
        return self.study.programs[self.number]

    @property
    def point(self) -> Point:
        """What they are trained on."""
        return self.study.points[self.program.point]

    @property
    def training(self) -> TrainingSettings:
        """Settings of the training."""
        return self.program.settings.training

    @property
    def units(self) -> int:
        """Units of a lane."""
        return int(self.point.settings.model.d_hidden)

    @property
    def steps(self) -> int:
        """How many are taken here; where lanes go on, those of the training are all of theirs."""
        return int(self.point.settings.training.steps)

    @property
    def steps_before(self) -> int:
        """How many were taken before."""
        return self.program.steps_before or 0


def place_lanes(study: Study, number: int, watched: bool, keep_state: bool = False) -> Lanes:
    """The lanes of a program, its samples copied to the devices.

    Args:
        study, number, keep_state: as in `Lanes`.
        watched: whether they are measured while they are trained.
    """
    release_programs()
    program = study.programs[number]
    data = study.points[program.point].data
    mesh = lane_mesh(study.devices, program.plan.data_parallel, program.plan.unit_parallel)
    # Evenly from all of them: those of one image lie side by side.
    part = data.heldout[:: -(-len(data.heldout) // WATCHED_ROWS)] if watched else None
    heldout, part = (place(rows, mesh, split=False) for rows in (data.heldout, part))
    names = program.settings.architecture.statistics(program.settings.model)
    statistics = place(statistics_of(data.train, names), mesh, split=False)
    lanes = Lanes(study, number, None, heldout, part, mesh, statistics, keep_state)
    return lanes if steps_per_block(lanes) else lanes._replace(block=block_at(lanes, 0))


def steps_per_block(lanes: Lanes) -> int | None:
    """How many steps a block of batches serves; None where one serves all."""
    return lanes.point.data.feed.steps(lanes.training.batch_size)


def block_at(lanes: Lanes, step: int) -> Any:
    """What batches are drawn from, from a step on, on all devices."""
    number = lanes.steps_before + step
    stop = lanes.steps_before + lanes.steps
    return place(lanes.point.data.feed.block(number, lanes.training.batch_size, stop), lanes.mesh, split=False)


def carry_at_start(lanes: Lanes, chunk: Chunk, inputs: Inputs) -> Carry:
    """A chunk's lanes, and sums of their curves, before their first step here."""
    state, sums = _compiled_start(lanes)(lanes.statistics, *inputs)
    origin, start = lanes.study.origin, lanes.program.start
    if origin is None or start is None:
        return state, sums
    numbers = start[np.maximum(chunk.cells, 0), chunk.seeds[:, None]]
    continued = lanes.program.steps_before is not None
    return place(
        started(origin, numbers, continued, state, lanes.program.settings), lanes.mesh, split=True, units=lanes.units
    ), sums


def shapes_at_start(lanes: Lanes, inputs: Inputs) -> Any:
    """Shapes and dtypes of what `carry_at_start` returns."""
    return jax.eval_shape(_compiled_start(lanes), lanes.statistics, *inputs)


def _compiled_start(lanes: Lanes) -> jax.stages.Wrapped:
    return compiled_start(lanes.heldout.shape[1], lanes.mesh, lanes.program.plan.sequential)


def inputs_of(lanes: Lanes, chunk: Chunk) -> Inputs:
    """A chunk's lanes on the devices: their settings, [blocks, cells_per_block], and their blocks' keys, [blocks]."""
    cells = np.maximum(chunk.cells, 0)
    in_training = settings_in_training(lanes.program.settings, lanes.program.plan)
    settings = place(lane_at(in_training, cells), lanes.mesh, split=True)
    seeds = np.asarray(lanes.study.grid.seeds, np.uint32)[lanes.program.seeds[chunk.seeds]]
    return settings, place_keys(seeds, lanes.mesh)


def indices_of(lanes: Lanes, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a chunk's lanes among the cells of their point and among the grid's seeds, each [lanes]."""
    seeds = np.broadcast_to(chunk.seeds[:, None], chunk.cells.shape)
    return lanes.program.cells[chunk.cells[chunk.real]], lanes.program.seeds[seeds[chunk.real]]

"""All lanes of one program on its devices: their samples, settings and keys, and where they start."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax.data.statistics import statistics_of
from sae_jax.sweeps.devices import lane_mesh, place, place_keys, release_programs
from sae_jax.sweeps.grid import Grid
from sae_jax.sweeps.pace import WATCHED_ROWS
from sae_jax.sweeps.plan import Chunk
from sae_jax.sweeps.program import Carry, Program, compiled_start
from sae_jax.sweeps.start import Start, started
from sae_jax.training.config import TrainingSettings, lane_at

# Of a chunk's lanes on the devices: their settings, leaves [blocks, cells_per_block], and their blocks' keys, [blocks].
Inputs = tuple[Any, Array]


class Lanes(NamedTuple):
    """All lanes of one program, with its samples on all of its devices.

    Attributes:
        number, programs: of the program, and how many there are.
        grid, program: the sweep, and its program.
        block: what batches are drawn from, where that is the same at all steps; else None.
        heldout: samples.
        watched: those of them that lanes are measured on while they are trained; None where nobody watches.
        mesh: the devices.
        statistics: of the samples by name, that parameters start from.
        start: the lanes that they start from; None starts at random.
        keep_state: whether what they carry after their last step is a result, too.
    """

    number: int
    programs: int
    grid: Grid
    program: Program
    block: Any
    heldout: Array
    watched: Array | None
    mesh: Mesh
    statistics: dict[str, Array]
    start: Start | None = None
    keep_state: bool = False

    @property
    def training(self) -> TrainingSettings:
        """Settings of the training."""
        return self.program.settings.training

    @property
    def steps(self) -> int:
        """How many are taken here; where lanes go on, those of the training are all of theirs."""
        return int(self.program.point.settings.training.steps)

    @property
    def steps_before(self) -> int:
        """How many were taken before."""
        return self.start.step if self.start else 0


def place_lanes(
    number: int,
    programs: int,
    grid: Grid,
    program: Program,
    devices: list[jax.Device],
    watched: bool,
    start: Start | None = None,
    keep_state: bool = False,
) -> Lanes:
    """The lanes of a program, its samples copied to the devices; arguments as in `Lanes`."""
    release_programs()
    mesh, heldout = lane_mesh(devices, program.plan.data_parallel), program.data.heldout
    # Evenly from all of them: those of one image lie side by side.
    part = heldout[:: -(-len(heldout) // WATCHED_ROWS)] if watched else None
    heldout, part = (place(rows, mesh, split=False) for rows in (heldout, part))
    names = program.settings.architecture.statistics(program.settings.model)
    statistics = place(statistics_of(program.data.train, names), mesh, split=False)
    lanes = Lanes(number, programs, grid, program, None, heldout, part, mesh, statistics, start, keep_state)
    return lanes if steps_per_block(lanes) else lanes._replace(block=block_at(lanes, 0))


def steps_per_block(lanes: Lanes) -> int | None:
    """How many steps a block of batches serves; None where one serves all."""
    return lanes.program.data.feed.steps(lanes.training.batch_size)


def block_at(lanes: Lanes, step: int) -> Any:
    """What batches are drawn from, from a step on, on all devices."""
    number = lanes.steps_before + step
    return place(lanes.program.data.feed.block(number, lanes.training.batch_size), lanes.mesh, split=False)


def carry_at_start(lanes: Lanes, chunk: Chunk, inputs: Inputs) -> Carry:
    """A chunk's lanes, and sums of their curves, before their first step here."""
    state, sums = _compiled_start(lanes)(lanes.statistics, *inputs)
    if lanes.start is None:
        return state, sums
    places = np.maximum(chunk.cells, 0), np.broadcast_to(chunk.seeds[:, None], chunk.cells.shape)
    return place(started(lanes.start, state, places), lanes.mesh, split=True), sums


def shapes_at_start(lanes: Lanes, inputs: Inputs) -> Any:
    """Shapes and dtypes of what `carry_at_start` returns."""
    return jax.eval_shape(_compiled_start(lanes), lanes.statistics, *inputs)


def _compiled_start(lanes: Lanes) -> jax.stages.Wrapped:
    return compiled_start(lanes.heldout.shape[1], lanes.mesh, lanes.program.plan.sequential)


def inputs_of(lanes: Lanes, chunk: Chunk) -> Inputs:
    """A chunk's lanes on the devices: their settings, [blocks, cells_per_block], and their blocks' keys, [blocks]."""
    cells = np.maximum(chunk.cells, 0)
    settings = place(lane_at(lanes.program.settings, cells), lanes.mesh, split=True)
    seeds = np.asarray(lanes.grid.seeds, np.uint32)[lanes.program.seeds[chunk.seeds]]
    return settings, place_keys(seeds, lanes.mesh)


def indices_of(lanes: Lanes, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a chunk's lanes among the cells of their point and among the grid's seeds, each [lanes]."""
    seeds = np.broadcast_to(chunk.seeds[:, None], chunk.cells.shape)
    return lanes.program.cells[chunk.cells[chunk.real]], lanes.program.seeds[seeds[chunk.real]]

"""Training all lanes of a program, a chunk at a time, from where each chunk stood."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax.settings import UserError
from sae_jax.storage.checkpoints import Arrays, Position
from sae_jax.sweeps.devices import fetch, lane_mesh, place, place_keys
from sae_jax.sweeps.grid import Grid
from sae_jax.sweeps.observers import Observer, Points, Progress, lane_coordinates
from sae_jax.sweeps.pace import FIRST_CALL, NextCall
from sae_jax.sweeps.plan import Chunk, Plan, chunk_at, halved, repacked
from sae_jax.sweeps.processes import started
from sae_jax.sweeps.program import Compiled, Program, compiled
from sae_jax.sweeps.recovery import Interrupted, Recovery
from sae_jax.training.config import TrainingSettings, lane_at
from sae_jax.training.lane import windows

# Takes a finished chunk's lanes: arrays by variable name [lanes, ...], positions among the cells and the seeds [lanes].
Put = Callable[[Arrays, np.ndarray, np.ndarray], None]


class Lanes(NamedTuple):
    """All lanes of one program, with its samples on all of its devices.

    Attributes:
        number: of the program.
        grid, program: the sweep, and its program.
        block: what batches are drawn from, where that is the same at all steps; else None.
        heldout: samples.
        mesh: the devices.
    """

    number: int
    grid: Grid
    program: Program
    block: Any
    heldout: Array
    mesh: Mesh

    @property
    def training(self) -> TrainingSettings:
        """Settings of the training."""
        return self.program.settings.training


def place_lanes(number: int, grid: Grid, program: Program, devices: list[jax.Device]) -> Lanes:
    """The lanes of a program, its samples copied to the devices; arguments as in `Lanes`."""
    mesh, data = lane_mesh(devices, program.plan.data_parallel), program.data
    lanes = Lanes(number, grid, program, None, place(data.heldout, mesh, split=False), mesh)
    return lanes if _steps_per_block(lanes) else lanes._replace(block=_block(lanes, 0))


def _steps_per_block(lanes: Lanes) -> int | None:
    """How many steps a block of batches serves; None where one serves all."""
    return lanes.program.data.feed.steps(lanes.training.batch_size)


def _block(lanes: Lanes, step: int) -> Any:
    """What batches are drawn from, from a step on, on all devices."""
    return place(lanes.program.data.feed.block(step, lanes.training.batch_size), lanes.mesh, split=False)


def run_lanes(lanes: Lanes, plan: Plan, put: Put, observer: Observer, recovery: Recovery | None = None) -> None:
    """Train and measure all lanes of a program.

    Args:
        lanes: what is trained.
        plan: how they are packed.
        put: takes a finished chunk's lanes, for good.
        observer: receives progress and points.
        recovery: saves chunks while they are trained and afterwards, and knows those saved before; None keeps nothing.

    Raises:
        Interrupted: the recovery was asked to end.
        UserError: not even one lane a device fits in memory, or what was saved is not of these lanes.
    """
    observer.progress(Progress("compiling", 0, lanes.training.steps * plan.chunks, plan.lanes))
    first = 0
    while first < plan.lanes:
        position = recovery.position(lanes.number, first) if recovery else None
        if position:
            plan = repacked(plan, position.cells_per_block, position.blocks_per_group)
        measured: Arrays | None
        if recovery and position and position.finished:
            measured = recovery.read_measured(position, measured_shapes(lanes, plan, first))
        else:
            measured, plan = train_within_memory(lanes, plan, first, position, observer, recovery)
            finished = _position(lanes, plan, first, lanes.training.steps, finished=True)
            measured = recovery.finish(finished, measured) if recovery else measured
        chunk = chunk_at(plan, first)
        if measured is not None:
            put(measured, *_indices(chunk))
        first = chunk.end


def train_within_memory(
    lanes: Lanes, plan: Plan, first: int, position: Position | None, observer: Observer, recovery: Recovery | None
) -> tuple[Arrays, Plan]:
    """`train_chunk`, or the same of a chunk of half the size where memory does not hold it; also returns its plan."""
    while True:
        try:
            return train_chunk(lanes, plan, first, position, observer, recovery), plan
        except JaxRuntimeError as error:
            # Processes that train together may not all know that one of them has no memory left.
            if "RESOURCE_EXHAUSTED" not in str(error) or started():
                raise
            reason, smaller = str(error).splitlines()[0], halved(plan)
        if smaller is None:
            raise UserError(
                f"a lane per device must fit in memory: got {plan.lane_bytes / 2**20:,.0f} MiB a lane, "
                f"and {reason}; use a smaller d_hidden or batch_size, or fewer devices"
            )
        observer.line(f"warning: a chunk must fit in memory: got {reason}; going on with chunks of half the size")
        observer.line(f"plan: {smaller}")
        plan, position = smaller, None


def train_chunk(
    lanes: Lanes, plan: Plan, first: int, position: Position | None, observer: Observer, recovery: Recovery | None
) -> Arrays:
    """Train a chunk from where it stood, and measure it.

    Args:
        lanes, plan, observer, recovery: as in `run_lanes`.
        first: number of its first lane.
        position: where it stood; None at its start.

    Returns:
        Held-out measures, parameters and curves by variable name, [lanes, ...].

    Raises:
        Interrupted: the recovery was asked to end; the lanes are saved.
    """
    chunk, program, inputs = chunk_at(plan, first), _program(lanes, plan), _inputs(lanes, chunk_at(plan, first))
    steps, stops = lanes.training.steps, windows(lanes.training.steps)
    carry, step = program.start(*inputs), 0
    curves = {name: np.zeros((*chunk.cells.shape, 0), np.float32) for name in carry[1]}
    if recovery and position:
        carry, step, curves = _restored(lanes, carry, curves, position, recovery)
    coordinates = lane_coordinates(lanes.grid, lanes.program.point, *_indices(chunk))
    per_block = _steps_per_block(lanes)
    block, block_end = lanes.block, step if per_block else steps
    logged, next_call = [curves], FIRST_CALL
    calls: list[tuple[int, int, Any]] = []  # First and last step, and the curves that are still being computed.
    fetched_at = time.monotonic()
    seconds_per_step: float | None = None

    def collect(left: int) -> None:
        """Fetch the results of all calls but so many, as soon as they are done, and send the points on."""
        nonlocal fetched_at, seconds_per_step
        while len(calls) > left:
            start, stop, computed = calls.pop(0)
            points = fetch(computed, lanes.mesh)
            before, fetched_at = fetched_at, time.monotonic()
            seconds_per_step = (fetched_at - before) / (stop - start)
            observer.progress(_progress(lanes, plan, chunk, "training", stop))
            if stop in stops:
                logged.append({name: values[..., None] for name, values in points.items()})
                real = {name: values[chunk.real] for name, values in points.items()}
                observer.points(Points(stop, coordinates, real))

    while step < steps:
        collect(left=int(next_call.ahead))
        next_call = recovery.next_call(next_call, seconds_per_step) if recovery else NextCall()
        if recovery and (next_call.save or next_call.end):
            collect(left=0)
            state = _by_path({"lanes": fetch(carry, lanes.mesh), "points": _joined(logged)})
            # Arrays without numbers cannot be saved.
            arrays = {name: values for name, values in state.items() if values.size}
            recovery.save(_position(lanes, plan, first, step, finished=False), arrays)
            fetched_at = time.monotonic()
        if next_call.end:
            raise Interrupted
        if logged[-1]["loss"].size and np.all(np.isnan(logged[-1]["loss"][..., -1])):
            break  # Every lane has stopped or diverged.
        start, window = step, int(np.searchsorted(stops, step, side="right"))
        if per_block and step >= block_end:
            block, block_end = _block(lanes, step), step + per_block
        step = min(int(stops[window]), start + next_call.steps, block_end)
        length = step - (int(stops[window - 1]) if window else 0) if step == stops[window] else 0
        bounds = map(np.int32, (start, step, length))
        carry, curves_of_call = program.advance(block, lanes.heldout, *bounds, carry, *inputs)
        calls.append((start, step, curves_of_call))
    collect(left=0)
    observer.progress(_progress(lanes, plan, chunk, "evaluating", steps))
    measured = fetch(program.measure(lanes.heldout, carry[0], *inputs), lanes.mesh)
    for name, values in _joined(logged).items():
        missing = len(stops) - values.shape[-1]
        measured[name] = np.pad(values, [(0, 0), (0, 0), (0, missing)], constant_values=np.nan)
    return {name: values[chunk.real] for name, values in measured.items()}


def measured_shapes(lanes: Lanes, plan: Plan, first: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what `train_chunk` returns."""
    chunk, program, inputs = chunk_at(plan, first), _program(lanes, plan), _inputs(lanes, chunk_at(plan, first))
    (state, sums) = jax.eval_shape(program.start, *inputs)
    shapes = jax.eval_shape(program.measure, lanes.heldout, state, *inputs)
    number = chunk.end - chunk.first
    measured = {name: jax.ShapeDtypeStruct((number, *one.shape[2:]), one.dtype) for name, one in shapes.items()}
    curve = jax.ShapeDtypeStruct((number, len(windows(lanes.training.steps))), np.dtype(np.float32))
    return measured | dict.fromkeys(sums, curve)


def _program(lanes: Lanes, plan: Plan) -> Compiled:
    return compiled(lanes.program.data.feed.draw, lanes.heldout.shape[1], lanes.mesh, plan.sequential)


def _inputs(lanes: Lanes, chunk: Chunk) -> tuple[Any, Array]:
    """A chunk's lanes on the devices: their settings, [blocks, cells_per_block], and their blocks' keys, [blocks]."""
    cells = np.maximum(chunk.cells, 0)
    settings = place(lane_at(lanes.program.settings, cells), lanes.mesh, split=True)
    return settings, place_keys(np.asarray(lanes.grid.seeds, np.uint32)[chunk.seeds], lanes.mesh)


def _indices(chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a chunk's lanes among the cells and among the seeds, each [lanes]."""
    seeds = np.broadcast_to(chunk.seeds[:, None], chunk.cells.shape)
    return chunk.cells[chunk.real], seeds[chunk.real]


def _restored(
    lanes: Lanes, carry: Any, curves: Arrays, position: Position, recovery: Recovery
) -> tuple[Any, int, Arrays]:
    """Lanes, steps and curves as they were saved; `carry` and `curves` are those of a chunk at its start."""
    stops = windows(lanes.training.steps)
    if position.step > lanes.training.steps or position.points != np.searchsorted(stops, position.step, side="right"):
        raise UserError(
            f"cannot resume: the checkpoint has {position.points} logged points at step {position.step}, "
            f"this sweep logs {len(stops)} in {lanes.training.steps} steps; remove it to train its lanes again"
        )
    points = {name: np.empty((*one.shape[:-1], position.points), one.dtype) for name, one in curves.items()}
    like = {"lanes": carry, "points": points}
    shapes = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in _by_path(like).items() if one.size}
    arrays = recovery.read(position, shapes)
    leaves = [arrays.get(name, one) for name, one in _by_path(like).items()]
    saved = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return place(saved["lanes"], lanes.mesh, split=True), position.step, saved["points"]


def _position(lanes: Lanes, plan: Plan, first: int, step: int, finished: bool) -> Position:
    points = int(np.searchsorted(windows(lanes.training.steps), step, side="right"))
    return Position(lanes.number, first, plan.cells_per_block, plan.blocks_per_group, step, points, finished)


def _progress(lanes: Lanes, plan: Plan, chunk: Chunk, phase: str, step: int) -> Progress:
    """How far a program is when a chunk has taken so many steps, and all before it have ended."""
    steps = lanes.training.steps
    done = plan.chunks * (chunk.first * steps + (chunk.end - chunk.first) * step) // plan.lanes
    return Progress(phase, done, steps * plan.chunks, plan.lanes)


def _joined(logged: list[Arrays]) -> Arrays:
    """Curves one after another, as one."""
    return {name: np.concatenate([points[name] for points in logged], axis=-1) for name in logged[0]}


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

"""Training a chunk of a program's lanes from where it stood, and measuring it."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.checkpoints import Arrays, Position
from sae_jax.sweeps.devices import fetch, place
from sae_jax.sweeps.observers import WATCHED, Observer, Points, Progress, lane_coordinates
from sae_jax.sweeps.pace import watched_steps
from sae_jax.sweeps.plan import Chunk, Plan, chunk_at
from sae_jax.sweeps.processes import together
from sae_jax.sweeps.program import Carry, compiled_advance, compiled_measure, compiled_rows, compiled_watch
from sae_jax.sweeps.program_lanes import (
    Inputs,
    Lanes,
    block_at,
    carry_at_start,
    indices_of,
    inputs_of,
    shapes_at_start,
    steps_per_block,
)
from sae_jax.sweeps.reading import ENDS
from sae_jax.sweeps.recovery import Interrupted, Recovery, next_call, read_state, save_state
from sae_jax.training.lane import row_width, snapshot_steps, windows
from sae_jax.training.optimizers import OPTIMIZERS

# Decoder rows at some of the steps, among the arrays of a finished chunk.
SNAPSHOTS = "decoder_snapshots"

# When results were fetched last, s, and what a step took then, s; None where that is not known.
Timing = tuple[float, float | None]


def train_chunk(
    lanes: Lanes, plan: Plan, first: int, position: Position | None, observer: Observer, recovery: Recovery | None
) -> Arrays:
    """Train a chunk from where it stood, and measure it.

    Args:
        lanes, observer, recovery: as in `chunks.run_lanes`.
        plan: how they are packed.
        first: number of its first lane.
        position: where it stood; None at its start.

    Returns:
        Held-out measures, parameters and curves by variable name, [lanes, ...].

    Raises:
        Interrupted: the recovery was asked to end; the lanes are saved.
        UserError: samples can no longer be read; the lanes are saved.
    """
    chunk = chunk_at(plan, first)
    inputs = inputs_of(lanes, chunk)
    steps, stops, snapshots = lanes.steps, windows(lanes.steps), snapshot_steps(lanes.point.settings)
    carry, step = carry_at_start(lanes, chunk, inputs), 0
    curves = {name: np.zeros((*chunk.cells.shape, 0), np.float32) for name in carry[1]}
    # Decoder rows at some of the steps; NaN at those that are not reached.
    rows = np.full((*chunk.cells.shape, *snapshot_shape(lanes)), np.nan, np.float32)
    if recovery and position:
        carry, curves, rows = _restored(lanes, carry, curves, rows, position, recovery)
        step = position.step
    _put_rows(rows, snapshots == step, lanes, carry, inputs)
    advance = compiled_advance(lanes.point.data.feed.draw, lanes.mesh, plan.sequential)
    watch, watched = compiled_watch(lanes.mesh), _watched_steps(lanes)
    coordinates = lane_coordinates(lanes.study.grid, lanes.point.labels, *indices_of(lanes, chunk))
    per_block = steps_per_block(lanes)
    block, block_end = lanes.block, step if per_block else steps
    # First and last step of each call whose curves and measures are still being computed, and these.
    calls: list[tuple[int, int, Any, Any]] = []
    logged, size, ahead = [curves], 1, True

    def collect(left: int, timing: Timing) -> Timing:
        """Fetch the results of all calls but so many, as soon as they are done, and send the points on."""
        while len(calls) > left:
            start, stop, computed, measured = calls.pop(0)
            points = fetch(computed, lanes.mesh)
            now = time.monotonic()
            timing = now, (now - timing[0]) / (stop - start)
            if stop in stops:
                logged.append({name: values[..., None] for name, values in points.items()})
                observer.points(at_step(stop, points))
            if measured:
                observer.measures(at_step(stop, fetch(measured, lanes.mesh)))
            observer.progress(progress_of(lanes, plan, _lane_steps(lanes, chunk, stop), "training"))
        return timing

    def at_step(step: int, values: Arrays) -> Points:
        return Points(step, coordinates, {name: every[chunk.real] for name, every in values.items()})

    def store(step: int, timing: Timing) -> tuple[float, Timing]:
        """Save the lanes as they are after a step; when that was, and the timing from there."""
        assert recovery
        _, seconds_per_step = collect(0, timing)
        state = _by_path({"lanes": fetch(carry, lanes.mesh), "points": _joined(logged), "snapshots": rows})
        # Arrays without numbers cannot be saved.
        arrays = {name: values for name, values in state.items() if values.size}
        save_state(recovery, position_at(lanes, plan, first, step, finished=False), arrays)
        now = time.monotonic()
        return now, (now, seconds_per_step)

    saved_at = time.monotonic()
    timing: Timing = saved_at, None
    while step < steps:
        timing = collect(int(ahead), timing)
        size, ahead, save, end = next_call(recovery, size, timing[1], saved_at)
        if recovery and (save or end):
            saved_at, timing = store(step, timing)
        if end:
            raise Interrupted
        if logged[-1]["loss"].size and np.all(np.isnan(logged[-1]["loss"][..., -1])):
            _put_rows(rows, snapshots > step, lanes, carry, inputs)  # Every lane has stopped or diverged.
            break
        start, window = step, int(np.searchsorted(stops, step, side="right"))
        if per_block and step >= block_end:
            try:
                block, block_end = together("train", functools.partial(block_at, lanes, step)), step + per_block
            except UserError:  # What was trained before samples could not be read is not lost with them.
                if recovery and step:
                    store(step, timing)
                raise
        step = min(int(stops[window]), start + size, block_end)
        length = step - (int(stops[window - 1]) if window else 0) if step == stops[window] else 0
        bounds = map(np.int32, (lanes.steps_before + start, lanes.steps_before + step, length))
        carry, curves_of_call = advance(block, lanes.heldout, *bounds, carry, *inputs)
        seen = watch(lanes.watched, carry[0], *inputs) if step in watched else None
        calls.append((start, step, curves_of_call, seen))
        _put_rows(rows, snapshots == step, lanes, carry, inputs)
    collect(0, timing)
    observer.progress(progress_of(lanes, plan, _lane_steps(lanes, chunk, steps), "evaluating"))
    measured = _measured(lanes, carry, inputs, _joined(logged), rows)
    observer.measures(at_step(steps, {name: measured[f"eval_{name}"] for name in WATCHED}))
    return {name: values[chunk.real] for name, values in measured.items()}


def _measured(lanes: Lanes, carry: Carry, inputs: Inputs, curves: Arrays, rows: np.ndarray) -> Arrays:
    """What there is to know of a chunk's lanes after their last step, [blocks, cells_per_block, ...] by name."""
    measured: Arrays = fetch(
        compiled_measure(lanes.mesh, lanes.keep_state)(lanes.heldout, carry[0], *inputs), lanes.mesh
    )
    for name in ENDS:  # Curves count from here, too.
        measured[name] = np.where(measured[name] < 0, -1, np.maximum(measured[name] - lanes.steps_before, 0))
    for name, values in curves.items():
        missing = len(windows(lanes.steps)) - values.shape[-1]
        measured[name] = np.pad(values, [(0, 0), (0, 0), (0, missing)], constant_values=np.nan)
    return measured | ({SNAPSHOTS: rows} if rows.size else {})


def measured_shapes(lanes: Lanes, plan: Plan, first: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what `train_chunk` returns."""
    chunk = chunk_at(plan, first)
    inputs = inputs_of(lanes, chunk)
    (state, sums) = shapes_at_start(lanes, inputs)
    shapes = jax.eval_shape(compiled_measure(lanes.mesh, lanes.keep_state), lanes.heldout, state, *inputs)
    number = chunk.end - chunk.first
    measured = {name: jax.ShapeDtypeStruct((number, *one.shape[2:]), one.dtype) for name, one in shapes.items()}
    curve = jax.ShapeDtypeStruct((number, len(windows(lanes.steps))), np.dtype(np.float32))
    per_lane = snapshot_shape(lanes)
    if per_lane[0]:
        measured[SNAPSHOTS] = jax.ShapeDtypeStruct((number, *per_lane), np.dtype(np.float32))
    return measured | dict.fromkeys(sums, curve)


def snapshot_shape(lanes: Lanes) -> tuple[int, int, int]:
    """Of a lane: at how many steps decoder rows are held, d_hidden and their width."""
    settings = lanes.point.settings
    return len(snapshot_steps(settings)), settings.model.d_hidden, row_width(settings, lanes.heldout.shape[1])


def _put_rows(rows: np.ndarray, where: np.ndarray, lanes: Lanes, carry: Carry, inputs: Inputs) -> None:
    """Put lanes' decoder rows where they are wanted: the next call trains in their memory.

    Args:
        rows: float32 [blocks, cells_per_block, snapshots, d_hidden, d_in], changed.
        where: at which of the snapshots they are now, booleans [snapshots].
        lanes, carry, inputs: the lanes.
    """
    if where.any():
        rows[:, :, where] = fetch(compiled_rows(lanes.mesh)(carry[0], *inputs), lanes.mesh)[:, :, None]


def _restored(
    lanes: Lanes, carry: Carry, curves: Arrays, rows: np.ndarray, position: Position, recovery: Recovery
) -> tuple[Carry, Arrays, np.ndarray]:
    """Lanes, curves and decoder rows as they were saved; the arguments are those of a chunk at its start."""
    stops = windows(lanes.steps)
    if position.step > lanes.steps or position.points != np.searchsorted(stops, position.step, side="right"):
        raise UserError(
            f"cannot resume: the checkpoint has {position.points} logged points at step {position.step}, "
            f"this sweep logs {len(stops)} in {lanes.steps} steps; remove it to train its lanes again"
        )
    points = {name: np.empty((*one.shape[:-1], position.points), one.dtype) for name, one in curves.items()}
    like = {"lanes": carry, "points": points, "snapshots": rows}
    shapes = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in _by_path(like).items() if one.size}
    arrays = read_state(recovery, position, shapes)
    leaves = [arrays.get(name, one) for name, one in _by_path(like).items()]
    saved = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return place(saved["lanes"], lanes.mesh, split=True, units=lanes.units), saved["points"], saved["snapshots"]


def position_at(lanes: Lanes, plan: Plan, first: int, step: int, finished: bool) -> Position:
    points = int(np.searchsorted(windows(lanes.steps), step, side="right"))
    return Position(lanes.number, first, plan.cells_per_block, plan.blocks_per_group, step, points, finished)


def _lane_steps(lanes: Lanes, chunk: Chunk, step: int) -> int:
    """Steps of all lanes together when a chunk has taken so many, and all chunks before it have ended."""
    return chunk.first * lanes.steps + (chunk.end - chunk.first) * step


def progress_of(lanes: Lanes, plan: Plan, lane_steps: int, phase: str) -> Progress:
    """How far a program is when its lanes have taken so many steps together."""
    done, steps = plan.chunks * lane_steps // plan.lanes, lanes.steps * plan.chunks
    return Progress(phase, done, steps, plan.lanes, lanes.number, len(lanes.study.programs))


def _watched_steps(lanes: Lanes) -> np.ndarray:
    """Steps after which lanes in training are measured; none where nobody watches."""
    if lanes.watched is None:
        return np.zeros(0, int)
    training, samples = lanes.training, len(lanes.point.data.train)
    full_batch = OPTIMIZERS[training.optimizer].full_batch
    return watched_steps(lanes.steps, samples if full_batch else training.batch_size, len(lanes.watched))


def _joined(logged: list[Arrays]) -> Arrays:
    """Curves one after another, as one."""
    return {name: np.concatenate([points[name] for points in logged], axis=-1) for name in logged[0]}


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

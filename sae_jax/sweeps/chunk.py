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
    training = _ChunkTraining(lanes, plan, first, position, observer, recovery)
    size, ahead = 1, True
    while training.step < lanes.steps:
        training.collect(int(ahead))
        size, ahead, save, end = next_call(recovery, size, training.seconds_per_step, training.saved_at)
        if save or end:
            training.save()
        if end:
            raise Interrupted
        if training.all_ended():
            training.put_rows(training.snapshots > training.step)
            break
        training.advance(size)
    training.collect(0)
    return training.measure()


class _ChunkTraining:
    """A chunk in training: its lanes as they stand, and the calls whose results are still being computed.

    Args:
        lanes, plan, first, position, observer, recovery: as in `train_chunk`.

    Attributes:
        step: steps that the lanes have taken, or are taking in the calls that are not collected.
        seconds_per_step: of the call that was collected last; None before there is one.
        saved_at: when the lanes were saved last, or began, s.
        snapshots: steps at which decoder rows are held.
    """

    def __init__(
        self,
        lanes: Lanes,
        plan: Plan,
        first: int,
        position: Position | None,
        observer: Observer,
        recovery: Recovery | None,
    ) -> None:
        self.lanes, self.plan, self.first, self.observer, self.recovery = lanes, plan, first, observer, recovery
        self.chunk = chunk_at(plan, first)
        self.inputs = inputs_of(lanes, self.chunk)
        self.stops, self.snapshots = windows(lanes.steps), snapshot_steps(lanes.point.settings)
        self.step, self.carry = 0, carry_at_start(lanes, self.chunk, self.inputs)
        shape = self.chunk.cells.shape
        curves = {name: np.zeros((*shape, 0), np.float32) for name in self.carry[1]}
        # Decoder rows at some of the steps; NaN at those that are not reached.
        self.rows = np.full((*shape, *snapshot_shape(lanes)), np.nan, np.float32)
        if recovery and position:
            self.carry, curves, self.rows = _restored(lanes, self.carry, curves, self.rows, position, recovery)
            self.step = position.step
        self.logged = [curves]
        self.put_rows(self.snapshots == self.step)
        self.run_steps = compiled_advance(lanes.point.data.feed.draw, lanes.mesh, plan.sequential)
        self.watch, self.watched = compiled_watch(lanes.mesh), _watched_steps(lanes)
        self.coordinates = lane_coordinates(lanes.study.grid, lanes.point.labels, *indices_of(lanes, self.chunk))
        self.per_block = steps_per_block(lanes)
        self.block, self.block_end = lanes.block, self.step if self.per_block else lanes.steps
        # First and last step of each call, its curves and its measures.
        self.calls: list[tuple[int, int, Any, Any]] = []
        self.seconds_per_step: float | None = None
        self.saved_at = self.collected_at = time.monotonic()

    def advance(self, size: int) -> None:
        """Begin a call of at most so many steps; it ends where curves are logged, or samples have to be read.

        Raises:
            UserError: samples can no longer be read; the lanes are saved.
        """
        start, window = self.step, int(np.searchsorted(self.stops, self.step, side="right"))
        if self.per_block and start >= self.block_end:
            self._read_block(self.per_block)
        lanes, stop = self.lanes, min(int(self.stops[window]), start + size, self.block_end)
        begun = int(self.stops[window - 1]) if window else 0
        length = stop - begun if stop == self.stops[window] else 0
        bounds = map(np.int32, (lanes.steps_before + start, lanes.steps_before + stop, length))
        self.carry, curves = self.run_steps(self.block, lanes.heldout, *bounds, self.carry, *self.inputs)
        measures = self.watch(lanes.watched, self.carry[0], *self.inputs) if stop in self.watched else None
        self.calls.append((start, stop, curves, measures))
        self.step = stop
        self.put_rows(self.snapshots == stop)

    def _read_block(self, steps: int) -> None:
        """Read the samples of the next so many steps."""
        try:
            self.block = together("train", functools.partial(block_at, self.lanes, self.step))
        except UserError:  # What was trained before samples could not be read is not lost with them.
            if self.step:
                self.save()
            raise
        self.block_end = self.step + steps

    def collect(self, left: int) -> None:
        """Fetch the results of all calls but so many, as soon as they are done, and send the points on."""
        while len(self.calls) > left:
            start, stop, computed, measures = self.calls.pop(0)
            points = fetch(computed, self.lanes.mesh)
            now = time.monotonic()
            self.seconds_per_step, self.collected_at = (now - self.collected_at) / (stop - start), now
            if stop in self.stops:
                self.logged.append({name: values[..., None] for name, values in points.items()})
                self.observer.points(self._at_step(stop, points))
            if measures:
                self.observer.measures(self._at_step(stop, fetch(measures, self.lanes.mesh)))
            self._show_progress(stop, "training")

    def save(self) -> None:
        """Save the lanes as they are, where there is a place for it."""
        if self.recovery is None:
            return
        self.collect(0)
        state = _by_path(
            {"lanes": fetch(self.carry, self.lanes.mesh), "points": _joined(self.logged), "snapshots": self.rows}
        )
        # Arrays without numbers cannot be saved.
        arrays = {name: values for name, values in state.items() if values.size}
        save_state(self.recovery, position_at(self.lanes, self.plan, self.first, self.step, finished=False), arrays)
        self.saved_at = self.collected_at = time.monotonic()

    def all_ended(self) -> bool:
        """Whether every lane had stopped or diverged when a point was collected last."""
        losses = self.logged[-1]["loss"]
        return bool(losses.size and np.all(np.isnan(losses[..., -1])))

    def put_rows(self, where: np.ndarray) -> None:
        """Fetch decoder rows as they are, before the next call trains in their memory, for some of the snapshots.

        Args:
            where: which of them, booleans [snapshots].
        """
        if where.any():
            now = fetch(compiled_rows(self.lanes.mesh)(self.carry[0], *self.inputs), self.lanes.mesh)
            self.rows[:, :, where] = now[:, :, None]

    def measure(self) -> Arrays:
        """Held-out measures, parameters and curves of the lanes as they are, [lanes, ...] by variable name."""
        self._show_progress(self.lanes.steps, "evaluating")
        measured = _measured(self.lanes, self.carry, self.inputs, _joined(self.logged), self.rows)
        watched = {name: measured[f"eval_{name}"] for name in WATCHED}
        self.observer.measures(self._at_step(self.lanes.steps, watched))
        return {name: values[self.chunk.real] for name, values in measured.items()}

    def _at_step(self, step: int, values: Arrays) -> Points:
        return Points(step, self.coordinates, {name: every[self.chunk.real] for name, every in values.items()})

    def _show_progress(self, step: int, phase: str) -> None:
        steps = _lane_steps(self.lanes, self.chunk, step)
        self.observer.progress(progress_of(self.lanes, self.plan, steps, phase))


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

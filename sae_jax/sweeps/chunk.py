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
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.devices import fetch, lane_mesh, place, place_keys
from sae_jax.sweeps.plan import Chunk, Plan, chunk_at, halved, repacked
from sae_jax.sweeps.program import Program, compiled
from sae_jax.sweeps.recovery import Interrupted, Keeper, Wish
from sae_jax.training.config import LaneSettings, lane_at
from sae_jax.training.lane import curve_names, windows
from sae_jax.training.step import Curves

# Takes a finished chunk's lanes: arrays by variable name [lanes, ...], positions among the cells and the seeds [lanes].
Put = Callable[[Arrays, np.ndarray, np.ndarray], None]


class Progress(NamedTuple):
    """Where a program stands: its phase (compiling, training, evaluating), steps over all chunks, lanes."""

    phase: str
    step: int
    steps: int
    lanes: int


class Reporter:
    """Somebody who is told how a sweep goes; this one ignores it."""

    def line(self, text: str) -> None:
        """Take one line of text."""

    def progress(self, progress: Progress) -> None:
        """Take where a program stands."""


class Job(NamedTuple):
    """All lanes of one program: the program, the seeds of every cell, and where the lanes go."""

    program: Program
    seeds: tuple[int, ...]
    devices: list[jax.Device]


class Samples(NamedTuple):
    """A program's samples, on all of its devices: what batches are drawn from, and those held out."""

    block: Any
    heldout: Array


def run_lanes(
    program: Program, seeds: tuple[int, ...], devices: list[jax.Device], keeper: Keeper, put: Put, reporter: Reporter
) -> None:
    """Train and measure all lanes of a program.

    Args:
        program: settings, samples and plan.
        seeds: of every cell.
        devices: where the lanes go.
        keeper: keeps chunks while they are trained and afterwards, and knows of those kept before.
        put: takes a finished chunk's lanes, for good.
        reporter: is told where the program stands.

    Raises:
        Interrupted: the keeper wished an end.
        UserError: not even one lane a device fits in memory, or what was kept is not of these lanes.
    """
    job, plan = Job(program, seeds, devices), program.plan
    reporter.progress(Progress("compiling", 0, program.settings.training.steps * plan.chunks, plan.lanes))
    mesh, data = lane_mesh(devices, plan.data_parallel), program.data
    block = data.feed.block(0, program.settings.training.batch_size)
    samples = Samples(*(place(part, mesh, split=False) for part in (block, data.heldout)))
    first = 0
    while first < plan.lanes:
        began = keeper.at(first)
        if began:
            plan = repacked(plan, began.cells_per_block, began.blocks_per_group)
        run = ChunkRun(job, samples, mesh, plan, first, keeper, reporter)
        if began is None or not began.finished:
            run = _trained(run, began)
            plan = run.plan
        chunk, found = run.chunk, keeper.found(first, run.expected)
        if found is not None:
            blocks = np.broadcast_to(chunk.seeds[:, None], chunk.cells.shape)
            put(found, chunk.cells[chunk.real], blocks[chunk.real])
        first = chunk.end


def _trained(run: ChunkRun, began: Position | None) -> ChunkRun:
    """Train a chunk, or one of half its size where memory does not hold it: the one that was trained."""
    while True:
        try:
            run.train(began)
            return run
        except JaxRuntimeError as error:
            # Processes that train together may not all know that one of them has no memory left.
            if "RESOURCE_EXHAUSTED" not in str(error) or distributed.started():
                raise
            reason, smaller = str(error).splitlines()[0], halved(run.plan)
        if smaller is None:
            raise UserError(
                f"a lane per device must fit in memory: got {run.plan.lane_bytes / 2**20:,.0f} MiB a lane, "
                f"and {reason}; use a smaller d_hidden or batch_size, or fewer devices"
            )
        line = f"warning: a chunk must fit in memory: got {reason}; going on with chunks of half the size"
        run.reporter.line(line)
        run.reporter.line(f"plan: {smaller}")
        run, began = run.packed_as(smaller), None


class ChunkRun:
    """A chunk in training."""

    def __init__(
        self, job: Job, samples: Samples, mesh: Mesh, plan: Plan, first: int, keeper: Keeper, reporter: Reporter
    ) -> None:
        """Lay a chunk out, the one that begins with a lane; its lanes are not on the devices yet."""
        self.job, self.samples, self.mesh, self.plan = job, samples, mesh, plan
        self.keeper, self.reporter = keeper, reporter
        self.chunk = chunk_at(plan, first)
        self.settings = job.program.settings
        self.steps, self.stops = self.settings.training.steps, windows(self.settings.training.steps)
        data = job.program.data
        self.program = compiled(data.feed.draw, data.train.shape[1], mesh, plan.sequential)

    def packed_as(self, plan: Plan) -> ChunkRun:
        """A chunk by another plan that begins with the same lane."""
        return ChunkRun(self.job, self.samples, self.mesh, plan, self.chunk.first, self.keeper, self.reporter)

    def train(self, began: Position | None) -> None:
        """Train the chunk from where it stood, and give what is found of it to the keeper.

        Raises:
            Interrupted: the keeper wished an end.
        """
        own = self._own()
        carry, step, points = self.program.start(*own), 0, _no_points(self.chunk, self.settings)
        if began:
            carry, step, points = self._restored(carry, points, began)
        logged, in_flight, wish = [points], _InFlight(self), Wish()
        while step < self.steps:
            logged += in_flight.collected(left=int(wish.ahead))
            wish = self.keeper.consult(in_flight.seconds_per_step)
            if wish.save or wish.end:
                logged += in_flight.collected(left=0)
                points = _joined(logged)
                state = _named({"lanes": fetch(carry, self.mesh), "points": points})
                self.keeper.save(
                    self._position(step, points, finished=False),
                    # Arrays without numbers cannot be kept.
                    {name: values for name, values in state.items() if values.size},
                )
                in_flight.began = time.monotonic()
            if wish.end:
                raise Interrupted
            if logged[-1]["loss"].size and np.all(np.isnan(logged[-1]["loss"][..., -1])):
                break  # Every lane has stopped or diverged.
            start, window = step, int(np.searchsorted(self.stops, step, side="right"))
            step = min(int(self.stops[window]), start + wish.steps)
            length = step - (int(self.stops[window - 1]) if window else 0) if step == self.stops[window] else 0
            bounds = map(np.int32, (start, step, length))
            carry, metrics = self.program.advance(*self.samples, *bounds, carry, *own)
            in_flight.calls.append((start, step, metrics))
        logged += in_flight.collected(left=0)
        self.report("evaluating", self.steps)
        found = fetch(self.program.measure(self.samples.heldout, carry[0], *own), self.mesh)
        points = _joined(logged)
        missing = [(0, 0), (0, 0), (0, len(self.stops) - points["loss"].shape[-1])]
        for name, values in points.items():
            found[name] = np.pad(values, missing, constant_values=np.nan)
        real = {name: values[self.chunk.real] for name, values in found.items()}
        self.keeper.finish(self._position(step, points, finished=True), real)

    def expected(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what is found of the chunk."""
        own = self._own()
        (lanes, _) = jax.eval_shape(self.program.start, *own)
        shapes = jax.eval_shape(self.program.measure, self.samples.heldout, lanes, *own)
        number = self.chunk.end - self.chunk.first
        found = {name: jax.ShapeDtypeStruct((number, *one.shape[2:]), one.dtype) for name, one in shapes.items()}
        curve = jax.ShapeDtypeStruct((number, len(self.stops)), np.dtype(np.float32))
        return found | dict.fromkeys(curve_names(self.settings), curve)

    def _own(self) -> tuple[LaneSettings, Array]:
        """What is a lane's own: its settings, [blocks, cells_per_block], and its block's key, [blocks]."""
        here = np.maximum(self.chunk.cells, 0)
        settings = place(lane_at(self.settings, here), self.mesh, split=True)
        return settings, place_keys(np.asarray(self.job.seeds, np.uint32)[self.chunk.seeds], self.mesh)

    def _restored(self, carry: Any, points: Curves, began: Position) -> tuple[Any, int, Curves]:
        """Lanes, steps and logged points as they were saved; `carry` is what lanes are at the start."""
        if began.step > self.steps or began.points != np.searchsorted(self.stops, began.step, side="right"):
            raise UserError(
                f"a checkpoint must hold the lanes of this run: got {began.points} points at step {began.step} of "
                f"{self.steps}; remove it to train them again"
            )
        logged = jax.tree.map(lambda one: np.empty((*one.shape[:-1], began.points), one.dtype), points)
        like = {"lanes": carry, "points": logged}
        shapes = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in _named(like).items() if one.size}
        arrays = self.keeper.read(began, shapes)
        leaves = [arrays.get(name, one) for name, one in _named(like).items()]
        saved = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return place(saved["lanes"], self.mesh, split=True), began.step, saved["points"]

    def _position(self, step: int, points: Curves, finished: bool) -> Position:
        sizes = self.plan.cells_per_block, self.plan.blocks_per_group
        return Position(0, self.chunk.first, *sizes, step, points["loss"].shape[-1], finished)

    def report(self, phase: str, step: int) -> None:
        """Say how far the program is when this chunk has taken so many steps."""
        chunk, plan = self.chunk, self.plan
        done = plan.chunks * (chunk.first * self.steps + (chunk.end - chunk.first) * step) // plan.lanes
        self.reporter.progress(Progress(phase, done, self.steps * plan.chunks, plan.lanes))


class _InFlight:
    """Calls whose results have not been fetched yet.

    Attributes:
        calls: first and last step of each, and its Curves.
        began: when the first of them began to be computed, or later.
        seconds_per_step: of the last one that was fetched; None before.
    """

    def __init__(self, run: ChunkRun) -> None:
        self._run = run
        self.calls: list[tuple[int, int, Curves]] = []
        self.began = time.monotonic()
        self.seconds_per_step: float | None = None

    def collected(self, left: int) -> list[Curves]:
        """Fetch all calls but so many, as soon as they are done: the points logged by them, [..., 1]."""
        points = []
        while len(self.calls) > left:
            start, stop, metrics = self.calls.pop(0)
            fetched = fetch(metrics, self._run.mesh)
            now = time.monotonic()
            self.seconds_per_step, self.began = (now - self.began) / (stop - start), now
            self._run.report("training", stop)
            if stop in self._run.stops:
                points.append(jax.tree.map(lambda one: one[..., None], fetched))
        return points


def _joined(points: list[Curves]) -> Curves:
    """Curves one after another, as one."""
    return jax.tree.map(lambda *curves: np.concatenate(curves, axis=-1), *points)


def _no_points(chunk: Chunk, settings: LaneSettings) -> Curves:
    """Curves without a logged point, [blocks, cells_per_block, 0]."""
    nothing: Any = np.zeros((*chunk.cells.shape, 0), np.float32)
    return dict.fromkeys(curve_names(settings), nothing)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

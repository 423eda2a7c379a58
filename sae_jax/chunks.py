"""Training all lanes of a program, a chunk at a time, from where each chunk stood."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jaxtyping import Array

from sae_jax import distributed
from sae_jax.checkpoints import Arrays, Position
from sae_jax.config import Config
from sae_jax.data import Data
from sae_jax.fitting import windows
from sae_jax.keepers import Interrupted, Keeper
from sae_jax.lanes import compiled
from sae_jax.parallel import fetch, lane_mesh, place, place_keys
from sae_jax.plan import Chunk, Plan, chunk_at, halved, repacked
from sae_jax.settings import UserError
from sae_jax.training import Metrics
from sae_jax.types import Hyperparameters

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
    """All lanes of one program.

    Attributes:
        config, data: the program and its samples.
        hyper: hyperparameters of every cell, each leaf [cells].
        seeds: seeds of every cell.
        devices: where the lanes go.
    """

    config: Config
    data: Data
    hyper: Hyperparameters
    seeds: tuple[int, ...]
    devices: list[jax.Device]


def run_lanes(job: Job, plan: Plan, keeper: Keeper, put: Put, reporter: Reporter) -> None:
    """Train and measure all lanes of a program.

    Args:
        job: the lanes.
        plan: how they are packed.
        keeper: keeps chunks while they are trained and afterwards, and knows of those kept before.
        put: takes every finished chunk's lanes, for good, once all are finished.
        reporter: is told where the program stands.

    Raises:
        Interrupted: the keeper wished an end.
        UserError: not even one lane a device fits in memory.
    """
    reporter.progress(Progress("compiling", 0, job.config.steps * plan.chunks, plan.lanes))
    finished, first = [], 0
    while first < plan.lanes:
        began = keeper.at(first)
        if began:
            plan = repacked(plan, began.cells_per_block, began.blocks_per_group)
        if began is None or not began.finished:
            plan = _train_within_memory(job, plan, first, began, keeper, reporter)
        chunk = chunk_at(plan, first)
        finished.append(ChunkRun(job, plan, chunk, keeper, reporter))
        first = chunk.end
    for run in finished:
        cells, seeds = run.chunk.cells, np.broadcast_to(run.chunk.seeds[:, None], run.chunk.cells.shape)
        found = keeper.found(run.chunk.first, run.expected())
        if found is not None:
            put(found, cells[run.chunk.real], seeds[run.chunk.real])


def _train_within_memory(
    job: Job, plan: Plan, first: int, began: Position | None, keeper: Keeper, reporter: Reporter
) -> Plan:
    """Train the chunk that begins with a lane, or one of half its size where memory does not hold it.

    Returns:
        The plan by which it could be trained.
    """
    while True:
        try:
            ChunkRun(job, plan, chunk_at(plan, first), keeper, reporter).train(began)
            return plan
        except JaxRuntimeError as error:
            # Processes that train together may not all know that one of them has no memory left.
            if "RESOURCE_EXHAUSTED" not in str(error) or distributed.started():
                raise
            reason, smaller = str(error).splitlines()[0], halved(plan)
        if smaller is None:
            raise UserError(
                f"a lane per device must fit in memory: got {plan.lane_bytes / 2**20:,.0f} MiB a lane, and {reason}; "
                "use a smaller d_hidden or batch_size, or fewer devices"
            )
        plan, began = smaller, None
        reporter.line(f"warning: a chunk must fit in memory: got {reason}; going on with chunks of half the size")
        reporter.line(f"plan: {plan}")


class ChunkRun:
    """A chunk in training."""

    def __init__(self, job: Job, plan: Plan, chunk: Chunk, keeper: Keeper, reporter: Reporter) -> None:
        """Lay a chunk out; nothing is on the devices yet."""
        self.job, self.plan, self.chunk, self.keeper, self.reporter = job, plan, chunk, keeper, reporter
        self.steps, self.stops = job.config.steps, windows(job.config.steps)
        self.mesh = lane_mesh(job.devices, plan.data_parallel)
        self.program = compiled(job.config, job.data.train.shape[1], self.mesh, plan.sequential)

    def train(self, began: Position | None) -> None:
        """Train the chunk from where it stood, and give what is found of it to the keeper.

        Raises:
            Interrupted: the keeper wished an end.
        """
        data, own = self.job.data, self._own()
        samples = tuple(place(part, self.mesh, split=False) for part in (data.train, data.heldout))
        carry, step, points = self.program.start(*own), 0, _no_points(self.chunk)
        if began:
            carry, step, points = self._restored(carry, points, began)
        in_flight: list[tuple[int, Metrics]] = []
        seconds, looked = None, time.monotonic()
        while step < self.steps:
            wish = self.keeper.consult(seconds)
            # One call stays in flight, so that the devices do not wait for the host.
            while in_flight and (wish.save or wish.end or len(in_flight) > 1):
                points = self._collected(points, *in_flight.pop(0))
                seconds, looked = time.monotonic() - looked, time.monotonic()
            if wish.save or wish.end:
                state = _flat({"lanes": fetch(carry, self.mesh), "points": points})
                self.keeper.save(self._position(step, points, finished=False), state)
                looked = time.monotonic()
            if wish.end:
                raise Interrupted
            if points.loss.shape[-1] and np.all(np.isnan(points.loss[..., -1])):
                break  # Every lane has stopped or diverged.
            start, window = step, int(np.searchsorted(self.stops, step, side="right"))
            step = min(int(self.stops[window]), start + wish.steps)
            length = step - (int(self.stops[window - 1]) if window else 0) if step == self.stops[window] else 0
            carry, metrics = self.program.advance(*samples, *map(np.int32, (start, step, length)), carry, *own)
            in_flight.append((step, metrics))
        self._report("evaluating", self.steps)
        found = fetch(self.program.measure(samples[1], carry[0], *own), self.mesh)
        for one in in_flight:
            points = self._collected(points, *one)
        missing = [(0, 0), (0, 0), (0, len(self.stops) - points.loss.shape[-1])]
        for name, values in points._asdict().items():
            found[name] = np.pad(values, missing, constant_values=np.nan)
        real = {name: values[self.chunk.real] for name, values in found.items()}
        self.keeper.finish(self._position(step, points, finished=True), real)

    def expected(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what is found of the chunk."""
        own = self._own()
        (lanes, _), heldout = jax.eval_shape(self.program.start, *own), self.job.data.heldout
        shapes = jax.eval_shape(self.program.measure, heldout, lanes, *own)
        number = self.chunk.end - self.chunk.first
        found = {name: jax.ShapeDtypeStruct((number, *one.shape[2:]), one.dtype) for name, one in shapes.items()}
        curve = jax.ShapeDtypeStruct((number, len(self.stops)), np.dtype(np.float32))
        return found | dict.fromkeys(Metrics._fields, curve)

    def _own(self) -> tuple[Hyperparameters, Array]:
        """What is a lane's own: its settings, [blocks, cells_per_block], and its block's key, [blocks]."""
        here = np.maximum(self.chunk.cells, 0)
        settings = place(jax.tree.map(lambda leaf: leaf[here], self.job.hyper), self.mesh, split=True)
        return settings, place_keys(np.asarray(self.job.seeds, np.uint32)[self.chunk.seeds], self.mesh)

    def _restored(self, carry: Any, points: Metrics, began: Position) -> tuple[Any, int, Metrics]:
        """Lanes, steps and logged points as they were saved; `carry` is what lanes are at the start."""
        logged = jax.tree.map(lambda one: np.zeros((*one.shape[:-1], began.points), one.dtype), points)
        like = {"lanes": carry, "points": logged}
        shapes = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in _named(like).items() if one.size}
        arrays = self.keeper.read(began, shapes)
        saved = jax.tree.unflatten(
            jax.tree.structure(like), [arrays.get(name, one) for name, one in _named(like).items()]
        )
        return place(saved["lanes"], self.mesh, split=True), began.step, saved["points"]

    def _collected(self, points: Metrics, stop: int, metrics: Metrics) -> Metrics:
        """Logged points and, once it is there, the one that ends at a step, if one does."""
        fetched = fetch(metrics, self.mesh)
        self._report("training", stop)
        if stop not in self.stops:
            return points
        return jax.tree.map(lambda old, new: np.concatenate([old, new[..., None]], axis=-1), points, fetched)

    def _position(self, step: int, points: Metrics, finished: bool) -> Position:
        sizes = self.plan.cells_per_block, self.plan.blocks_per_group
        return Position(0, self.chunk.first, *sizes, step, points.loss.shape[-1], finished)

    def _report(self, phase: str, step: int) -> None:
        chunk, plan = self.chunk, self.plan
        done = plan.chunks * (chunk.first * self.steps + (chunk.end - chunk.first) * step) // plan.lanes
        self.reporter.progress(Progress(phase, done, self.steps * plan.chunks, plan.lanes))


def _no_points(chunk: Chunk) -> Metrics:
    """Curves without a logged point, [blocks, cells_per_block, 0]."""
    nothing: Any = np.zeros((*chunk.cells.shape, 0), np.float32)
    return Metrics(*[nothing] * len(Metrics._fields))


def _named(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _flat(tree: Any) -> Arrays:
    """The same as copies that nothing else will write to, but for arrays without numbers, which cannot be kept."""
    return {name: np.array(leaf) for name, leaf in _named(tree).items() if leaf.size}

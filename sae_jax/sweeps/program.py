"""One program: its compiled functions over all lanes of a chunk, and the memory that a lane needs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from sae_jax.data import Data
from sae_jax.models.base import Batch, Key, Loss
from sae_jax.models.choice import CODES
from sae_jax.sweeps import processes
from sae_jax.sweeps.devices import batch_axis, copied_bytes, local_devices, release_programs
from sae_jax.sweeps.mapping import over_lanes
from sae_jax.sweeps.observers import WATCHED
from sae_jax.sweeps.plan import Engine, Plan, make_plan, memory_budget
from sae_jax.training.config import LaneSettings
from sae_jax.training.evaluation import evaluate
from sae_jax.training.lane import (
    ROWS,
    LaneState,
    end_window,
    final_params,
    init_lane,
    no_curves,
    snapshot_bytes,
    train_steps,
)
from sae_jax.training.optimizers import OPTIMIZERS
from sae_jax.training.step import Curves

# Arrays of a batch's inputs and codes that a step holds at once: 2 to 6 in most models, by the compiler's account.
WORKING_ARRAYS = 3
# Lanes that are estimated to need less than this fit into any memory, also where the estimate is far too low.
SMALL_BYTES = 2**25

# A lane in training: its state, and its curves summed since the last logged point.
Carry = tuple[LaneState, Curves]


class Point(NamedTuple):
    """What one program of a grid trains: a combination of places along the program dimensions.

    Attributes:
        labels: those on the program dimensions.
        settings: of all of its cells, swept leaves [cells].
        data: its samples.
    """

    labels: dict[str, Any]
    settings: LaneSettings
    data: Data


class Program(NamedTuple):
    """Lanes that one compiled program trains: some cells of a point, each with the same seeds.

    Attributes:
        point: number of the point whose cells they are.
        cells: positions among the point's cells, [cells].
        seeds: positions among the grid's seeds, [seeds].
        settings: of its cells, swept leaves [cells]; of lanes that go on, steps are all of theirs.
        plan: how its lanes are packed.
        start: numbers of the lanes of another sweep that they start from, [cells, seeds]; None starts at random.
        steps_before: steps that were taken there, from which the optimizer's state, what the model carries, batches,
            noise and schedules go on; None where parameters alone do.
    """

    point: int
    cells: np.ndarray
    seeds: np.ndarray
    settings: LaneSettings
    plan: Plan
    start: np.ndarray | None = None
    steps_before: int | None = None


@functools.lru_cache(maxsize=32)
def compiled_start(d_in: int, mesh: Mesh, sequential: bool) -> jax.stages.Wrapped:
    """f(statistics, settings, keys) -> (lanes, sums over no steps), all lanes of a chunk before their first step.

    This one and those below are cached: other samples of the same shapes compile nothing.
    """
    return over_lanes(functools.partial(_start, d_in), mesh, 1, sequential)


@functools.lru_cache(maxsize=32)
def compiled_advance(draw: Callable[..., Batch], mesh: Mesh, sequential: bool) -> jax.stages.Wrapped:
    """f(block, heldout, start, stop, length, (lanes, sums), settings, keys) -> ((lanes, sums), curves).

    Trains from one step to another; length is that of the logged window that ends there, 0 where none does.
    """
    return over_lanes(functools.partial(_advance, draw, batch_axis(mesh)), mesh, 5, sequential, in_place=True)


@functools.lru_cache(maxsize=32)
def compiled_measure(mesh: Mesh, keep_state: bool) -> jax.stages.Wrapped:
    """f(heldout, lanes, settings, keys) -> held-out measures, parameters and ends by variable name."""
    # One lane at a time: a held-out split is many times as large as a batch.
    return over_lanes(functools.partial(_measure, keep_state), mesh, 1, True, cells_in_turn=True)


@functools.lru_cache(maxsize=32)
def compiled_watch(mesh: Mesh) -> jax.stages.Wrapped:
    """f(samples, lanes, settings, keys) -> the measures that observers receive, by name."""
    return over_lanes(_watch, mesh, 1, True, cells_in_turn=True)


@functools.lru_cache(maxsize=32)
def compiled_rows(mesh: Mesh) -> jax.stages.Wrapped:
    """f(lanes, settings, keys) -> their decoder rows."""
    return over_lanes(_rows, mesh, 0, True)


def _start(d_in: int, statistics: Mapping[str, Array], settings: LaneSettings, key: Key) -> Carry:
    return init_lane(key, settings, d_in, statistics), no_curves(settings)


def _advance(
    draw: Callable[..., Batch],
    axis_name: str | None,
    block: Any,
    heldout: Array,
    start: Array,
    stop: Array,
    length: Array,
    carry: Carry,
    settings: LaneSettings,
    key: Key,
) -> tuple[Carry, Curves]:
    lane, total = train_steps(settings, draw, *carry, block, key, start, stop, axis_name)
    lane, curves = end_window(settings, lane, total, heldout, length)
    total = jax.tree.map(lambda value: jnp.where(length > 0, 0, value), total)
    return (lane, total), curves


def _measure(keep_state: bool, heldout: Array, lane: LaneState, settings: LaneSettings, key: Key) -> dict[str, Array]:
    params = final_params(lane, settings)
    state = jax.tree_util.tree_leaves_with_path(lane.train) if keep_state else []
    measures = evaluate(params, heldout, settings)
    # No step follows the last one that would find its loss not to be finite.
    finite = jnp.isfinite(measures["reconstruction"]) & ~jnp.isinf(measures["explained_variance"])
    diverged_at = lane.train.diverged_at
    return {
        **{f"eval_{name}": value for name, value in measures.items()},
        **params,
        "diverged_at": jnp.where(finite | (diverged_at >= 0), diverged_at, lane.train.step),
        "stopped_at": lane.stopping.stopped_at,
        **{jax.tree_util.keystr(path): leaf for path, leaf in state},
    }


def _watch(samples: Array, lane: LaneState, settings: LaneSettings, key: Key) -> dict[str, Array]:
    measured = evaluate(final_params(lane, settings), samples, settings)
    return {name: measured[name] for name in WATCHED}


def _rows(lane: LaneState, settings: LaneSettings, key: Key) -> Array:
    return final_params(lane, settings)[ROWS]


def plan_lanes(settings: LaneSettings, data: Data, seeds: int, devices: list[jax.Device], engine: Engine) -> Plan:
    """Lay a program's lanes out, from the memory that one lane needs.

    Where all of them together are far from any limit, an estimate of it will do, since the compiler's own account takes
    as long as the program itself takes to compile.

    Args:
        settings: of all cells, swept leaves [cells].
        data: the program's samples.
        seeds: number of seeds of every cell.
        devices: devices to spread over.
        engine: what the user has decided.
    """
    # What gathers and scatters cost has been measured on processors alone.
    # Lists choose single rows, which lie on other devices where units are split.
    loss = lists_of(settings) if devices[0].platform == "cpu" and engine.unit_parallel == 1 else None
    lists = loss is not None
    # Lists take more memory than what they spare.
    structure = jax.tree.structure(settings if loss is None else _with_loss(settings, loss))
    batch_size = settings.training.batch_size // engine.data_parallel
    block = data.feed.block(0, batch_size, 0)
    shapes = jax.tree.structure(block), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(block))
    # In step with others, a lane's line search waits for the longest one.
    full_batch = OPTIMIZERS[settings.training.optimizer].full_batch
    cells = len(jax.tree.leaves(settings)[0])
    state_bytes = _state_bytes(structure, data.heldout.shape[1])
    width = 4 * (data.heldout.shape[1] + settings.model.d_hidden)
    arrays = WORKING_ARRAYS + settings.architecture.arrays(settings.model)
    worked_bytes = state_bytes + arrays * width * (len(data.train) if full_batch else batch_size)
    lane_bytes, measure_bytes = worked_bytes, WORKING_ARRAYS * width * len(data.heldout)
    if worked_bytes * cells * seeds * engine.data_parallel / len(devices) + measure_bytes > SMALL_BYTES:
        while_training, measure_bytes = _working_memory(
            structure, data.feed.draw, shapes, data.heldout.shape, batch_size
        )
        lane_bytes = state_bytes + while_training
    # Of a whole lane, until here; what has no units is small beside what has.
    worked_bytes, lane_bytes, measure_bytes = (
        -(-size // engine.unit_parallel) for size in (worked_bytes, lane_bytes, measure_bytes)
    )
    shared_bytes = copied_bytes((block, data.heldout), devices) + measure_bytes
    # Every process must make the same plan.
    budget = min(processes.gather("load the data", lambda: memory_budget(local_devices(devices), shared_bytes)))
    widest = 1 if full_batch and devices[0].platform == "cpu" else 0
    host_bytes = snapshot_bytes(settings, data.heldout.shape[1])
    plan = make_plan(cells, seeds, devices, lane_bytes, budget, engine, widest, worked_bytes, host_bytes)
    data_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((block, data.heldout)))
    return plan._replace(data_bytes=data_bytes, state_bytes=state_bytes, lists=lists)


def lists_of(settings: LaneSettings) -> Loss | None:
    """The loss of lists of active codes with which lanes of such settings are trained, each by itself on a processor.

    Args:
        settings: of all cells, swept leaves [cells].
    """
    model = settings.architecture
    full_batch = OPTIMIZERS[settings.training.optimizer].full_batch
    too_many = settings.training.batch_size * settings.model.d_hidden >= CODES
    loss: Loss | None = None if full_batch or too_many else model.sparse(model.loss, settings.model)
    return loss


def settings_in_training(settings: LaneSettings, plan: Plan) -> LaneSettings:
    """A program's settings, with the loss that its plan says.

    Args:
        settings: of all cells, swept leaves [cells].
        plan: of their lanes.
    """
    loss = lists_of(settings) if plan.sparse else None
    return settings if loss is None else _with_loss(settings, loss)


def _with_loss(settings: LaneSettings, loss: Loss) -> LaneSettings:
    return dataclasses.replace(settings, architecture=settings.architecture._replace(loss=loss))


@functools.lru_cache(maxsize=64)
def _working_memory(
    structure: Any, draw: Callable[..., Batch], block_shapes: Any, heldout_shape: tuple[int, int], batch_size: int
) -> tuple[int, int]:
    """Bytes that training a lane, and measuring it, take beside its state: the compiler's own account of one lane.

    Args:
        structure: of the lane's settings, whose statics it holds.
        draw: of the source of batches.
        block_shapes: structure, and shape and dtype of every leaf, of what `draw` reads.
        heldout_shape: of the held-out samples.
        batch_size: samples of a batch on one device.
    """
    release_programs()
    settings = _abstract_settings(structure)
    training = dataclasses.replace(settings.training, batch_size=batch_size)
    settings = dataclasses.replace(settings, training=training)
    tree, leaves = block_shapes
    block = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    count, heldout = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct(heldout_shape, jnp.float32)
    carry, key = _abstract_carry(settings, heldout_shape[1])
    advance = jax.jit(functools.partial(_advance, draw, None), donate_argnums=5)
    while_training = _temporary(advance.lower(block, heldout, count, count, count, carry, settings, key))
    measuring = _temporary(jax.jit(functools.partial(_measure, False)).lower(heldout, carry[0], settings, key))
    return while_training, measuring


@functools.lru_cache(maxsize=64)
def _state_bytes(structure: Any, d_in: int) -> int:
    """Bytes of a lane's state, from its shapes."""
    carry, _ = _abstract_carry(_abstract_settings(structure), d_in)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry))


def _abstract_settings(structure: Any) -> LaneSettings:
    """Settings of a lane without their values."""
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    settings: LaneSettings = jax.tree.unflatten(structure, [scalar] * structure.num_leaves)
    return settings


def _abstract_carry(settings: LaneSettings, d_in: int) -> tuple[Any, Any]:
    """(what a lane carries from step to step, its key), without their values."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    names = settings.architecture.statistics(settings.model)
    statistics = {name: jax.ShapeDtypeStruct((d_in,), jnp.float32) for name in names}
    return jax.eval_shape(functools.partial(_start, d_in), statistics, settings, key), key


def _temporary(lowered: jax.stages.Lowered) -> int:
    """Bytes that a program needs beside its arguments and results. Memory is laid out before code is optimised."""
    needs = lowered.compile(compiler_options={"xla_backend_optimization_level": "0"}).memory_analysis()
    return int(needs.temp_size_in_bytes) if needs else 0

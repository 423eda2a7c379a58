"""The engine as a sweep runs it, two plain ways to run the same step on one device, and bare matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from experiments.benchmark.shapes import Shape
from sae_jax import Data, LaneSettings
from sae_jax.sweeps.devices import lane_mesh, place, place_keys
from sae_jax.sweeps.plan import Engine, Plan, chunk_at
from sae_jax.sweeps.program import Carry, compiled_advance, compiled_start, plan_lanes, settings_in_training
from sae_jax.training.config import lane_at
from sae_jax.training.lane import LaneState, init_lane, no_curves, train_steps

# Takes a number of training steps of all its lanes and returns when they are done.
Contender = Callable[[int], None]


class Cost(NamedTuple):
    """What a program costs before its first step: seconds to compile it, bytes that it needs on all devices."""

    seconds: float
    memory: int


class Lanes(NamedTuple):
    """Lanes of a shape, those of its first chunk, ready to be trained: their number, plan, program and arguments.

    Attributes:
        number: how many there are.
        plan: how they are packed.
        advance: what `sae_jax.sweeps.program.compiled_advance` returns.
        samples: what batches are drawn from, and those held out.
        carry: the lanes before their first step.
        settings: of every lane, leaves [blocks, cells_per_block].
        keys: of every block's seed, [blocks].
    """

    number: int
    plan: Plan
    advance: jax.stages.Wrapped
    samples: tuple[Any, Array]
    carry: Carry
    settings: LaneSettings
    keys: Array


def lanes_of(shape: Shape, cells: LaneSettings, data: Data, devices: list[jax.Device], by_lists: bool = True) -> Lanes:
    """The lanes as `sae_jax.sweep` lays them out: blocks of one seed's cells, spread over the devices; one chunk.

    Args:
        shape: how many lanes of which size.
        cells: their settings, leaves [cells].
        data: the samples.
        devices: as many as there are, at the most.
        by_lists: whether active codes alone may be multiplied, where the plan says so.
    """
    devices = devices[: shape.lanes]
    plan = plan_lanes(cells, data, len(shape.seeds), devices, Engine())
    plan = plan._replace(lists=plan.lists and by_lists)
    mesh = lane_mesh(devices, plan.data_parallel)
    chunk = chunk_at(plan, 0)
    settings = place(lane_at(settings_in_training(cells, plan), np.maximum(chunk.cells, 0)), mesh, split=True)
    keys = place_keys(np.asarray(shape.seeds, np.uint32)[chunk.seeds], mesh)
    advance = compiled_advance(data.feed.draw, mesh, plan.sequential)
    carry = compiled_start(shape.d_in, mesh, plan.sequential)({}, settings, keys)
    block = data.feed.block(0, shape.batch, 1)
    samples = (place(block, mesh, split=False), place(data.heldout, mesh, split=False))
    return Lanes(chunk.end, plan, advance, samples, carry, settings, keys)


def engine(lanes: Lanes) -> tuple[Contender, Cost]:
    """The contender that trains lanes as a sweep does, and what compiling it cost."""
    carry, step = lanes.carry, 0
    start = time.perf_counter()
    run = lanes.advance.lower(*lanes.samples, *map(np.int32, (0, 1, 0)), carry, lanes.settings, lanes.keys).compile()
    seconds, needs = time.perf_counter() - start, run.memory_analysis()
    assert needs is not None
    memory = needs.argument_size_in_bytes + needs.output_size_in_bytes + needs.temp_size_in_bytes
    memory -= needs.alias_size_in_bytes

    def advance(steps: int) -> None:
        nonlocal carry, step
        bounds = map(np.int32, (step, step + steps, steps))
        carry, curves = run(*lanes.samples, *bounds, carry, lanes.settings, lanes.keys)
        jax.block_until_ready(curves)
        step += steps

    return advance, Cost(seconds, memory * lanes.plan.devices)


def control(shape: Shape, data: Data, device: jax.Device, batched: bool) -> Contender:
    """The same step for every lane on one device, under plain vmap or under lax.map, each lane with its own batch."""
    settings = jax.tree.map(lambda leaf: np.tile(leaf, len(shape.seeds)), shape.cells())
    keys = jax.vmap(jax.random.key)(np.arange(shape.lanes, dtype=np.uint32))
    block = jax.device_put(data.feed.block(0, shape.batch, 1), device)

    def over(one: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(one) if batched else lambda *lanes: jax.lax.map(lambda lane: one(*lane), lanes)

    states = jax.jit(over(lambda lane, key: init_lane(key, lane, shape.d_in)))(settings, keys)
    step = 0

    def window(states: LaneState, start: Array, stop: Array) -> Any:
        def one(state: LaneState, lane: LaneSettings, key: Array) -> Any:
            return train_steps(lane, data.feed.draw, state, no_curves(lane), block, key, start, stop)

        return over(one)(states, settings, keys)

    run = jax.jit(window, donate_argnums=0)

    def advance(steps: int) -> None:
        nonlocal states, step
        states, curves = run(states, np.int32(step), np.int32(step + steps))
        jax.block_until_ready(curves)
        step += steps

    return advance


def products(shape: Shape, devices: list[jax.Device]) -> Contender:
    """The five matrix products of a step and nothing else, a device's lanes together, lanes spread over the devices."""
    mesh = lane_mesh(devices[: shape.lanes])
    lanes = -(-shape.lanes // mesh.size) * mesh.size
    rng = np.random.default_rng(0)

    def drawn(*size: int) -> Array:
        return place(rng.normal(size=(lanes, *size)).astype(np.float32) * 1e-2, mesh, split=True)

    arrays = {
        "x": drawn(shape.batch, shape.d_in),
        "we": drawn(shape.d_in, shape.d_hidden),
        "wd": drawn(shape.d_hidden, shape.d_in),
    }

    def five(lane: dict[str, Array]) -> dict[str, Array]:
        x, we, wd = lane["x"], lane["we"], lane["wd"]
        codes = x @ we
        out = codes @ wd
        back = out @ wd.T
        # What each step leaves is the next one's input, so that no product can be skipped.
        return {"x": x, "we": we + 1e-9 * (x.T @ back), "wd": wd + 1e-9 * (codes.T @ out)}

    def one(lane: dict[str, Array], steps: Array) -> dict[str, Array]:
        return jax.lax.fori_loop(0, steps, lambda _, state: five(state), lane)

    in_turn = devices[0].platform == "cpu"

    def spread(lanes: dict[str, Array], steps: Array) -> dict[str, Array]:
        return jax.lax.map(lambda lane: one(lane, steps), lanes) if in_turn else jax.vmap(one, (0, None))(lanes, steps)

    split, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    run = jax.jit(jax.shard_map(spread, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False))

    def advance(steps: int) -> None:
        jax.block_until_ready(run(arrays, jnp.int32(steps)))

    return advance

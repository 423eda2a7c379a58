"""Devices, and how the lanes of a sweep are laid out over them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sae_jax.settings import UserError

LANES = "lanes"
# The fixed cost of a block's step in units of one lane's step: what makes wide blocks worth some padding.
BLOCK_OVERHEAD = 0.5
# Wider blocks fall out of a CPU core's cache.
CPU_CELLS_PER_BLOCK = 32
CPU_MEMORY_SHARE = 0.5
ACCELERATOR_MEMORY_SHARE = 0.8


class Plan(NamedTuple):
    """How lanes are packed: a block holds cells of one seed, which share its batches; a chunk is what runs at once.

    Attributes:
        cells, seeds: size of the sweep; lanes = cells * seeds.
        devices: number of devices.
        cells_per_block: cells in a block; the last block of a seed is filled up with repeats.
        blocks_per_device: blocks that a device holds in one chunk.
        chunks: chunks, one after another.
        sequential: a device runs its blocks one after another (CPU), not as one batch.
        lane_bytes, budget_bytes: memory of a lane, and what all lanes of a chunk may use.
    """

    cells: int
    seeds: int
    devices: int
    cells_per_block: int
    blocks_per_device: int
    chunks: int
    sequential: bool
    lane_bytes: int
    budget_bytes: int

    @property
    def lanes(self) -> int:
        return self.cells * self.seeds

    @property
    def blocks_per_chunk(self) -> int:
        return self.devices * self.blocks_per_device

    def __str__(self) -> str:
        kind = jax.default_backend().upper()
        held = self.blocks_per_chunk * self.cells_per_block * self.lane_bytes
        return (
            f"{count(self.lanes, 'lane')} ({count(self.cells, 'cell')} x {count(self.seeds, 'seed')}) on "
            f"{count(self.devices, kind + ' device')}: {count(self.chunks, 'chunk')} of "
            f"{count(self.blocks_per_chunk, 'block')} of {count(self.cells_per_block, 'cell')} "
            f"{'in turn' if self.sequential else 'in parallel'}; "
            f"{held / 2**20:,.0f} MiB of {self.budget_bytes / 2**20:,.0f} MiB"
        )


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 lane, 2 lanes."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def choose_devices(wanted: int | None = None) -> list[jax.Device]:
    """The devices to spread lanes over: as many as wanted, else every one; on a CPU, one per core.

    XLA runs each CPU device on its own thread, which is 1.4 to 2.3 times faster than one device with all cores. The
    number of CPU devices is fixed by the first JAX computation of the process; after that, what exists is used.

    Raises:
        UserError: fewer devices exist than are wanted.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"devices must be >= 1: got {wanted}")
    with contextlib.suppress(RuntimeError):  # JAX has computed something already.
        chosen_before = max(jax.config.jax_num_cpu_devices, 0)  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", max(wanted or 1, chosen_before or cpu_cores()))
    available = jax.local_devices()
    if wanted is not None and wanted > len(available):
        raise UserError(
            f"devices must be at most what JAX has: got {wanted} of {len(available)} {jax.default_backend()} devices"
        )
    return available[:wanted]


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_budget(devices: list[jax.Device], shared_bytes: int) -> int:
    """Bytes that lanes may use over all devices together, with the data (one copy a device) set aside."""
    if devices[0].platform == "cpu":
        available = CPU_MEMORY_SHARE * psutil.virtual_memory().available
    else:
        stats = devices[0].memory_stats() or {}
        free = stats.get("bytes_limit", 2**33) - stats.get("bytes_in_use", 0)
        available = ACCELERATOR_MEMORY_SHARE * free * len(devices)
    return int(available) - shared_bytes * len(devices)


def devices_that_fit(devices: list[jax.Device], shared_bytes: int, lane_bytes: int) -> list[jax.Device]:
    """As many of the devices as have memory for one lane each, at least one; arguments as in `make_plan`."""
    fitting = [n for n in range(1, len(devices) + 1) if memory_budget(devices[:n], shared_bytes) >= n * lane_bytes]
    return devices[: max(fitting, default=1)]


def make_plan(
    cells: int,
    seeds: int,
    devices: list[jax.Device],
    lane_bytes: int,
    budget_bytes: int,
    lanes_per_chunk: int | None = None,
    widest_block: int | None = None,
) -> Plan:
    """Pack cells x seeds lanes into blocks and chunks so that the devices end together and memory suffices.

    Args:
        cells, seeds: size of the sweep.
        devices: devices to spread over.
        lane_bytes: memory of one lane.
        budget_bytes: memory of all lanes of a chunk.
        lanes_per_chunk: the most lanes of a chunk; None leaves it to memory.
        widest_block: the most cells of a block; None leaves it to the devices.

    Raises:
        UserError: not even one lane per device fits.
    """
    count, sequential = len(devices), devices[0].platform == "cpu"
    fitting = budget_bytes // lane_bytes
    if fitting < count:
        raise UserError(
            f"a lane per device must fit in memory: {count} x {lane_bytes / 2**20:,.0f} MiB needed, "
            f"{max(budget_bytes, 0) / 2**20:,.0f} MiB available; use a smaller d_hidden or batch_size, or fewer devices"
        )
    most = max(count, min(fitting, lanes_per_chunk or fitting))
    widest = min(cells, most // count, widest_block or (CPU_CELLS_PER_BLOCK if sequential else cells))
    splits = np.arange(math.ceil(cells / widest), cells + 1)  # blocks per seed
    width = np.ceil(cells / splits)
    per_device = np.ceil(seeds * splits / count)
    best = int(np.argmin(per_device * (width + BLOCK_OVERHEAD)))
    cells_per_block, blocks = int(width[best]), seeds * math.ceil(cells / int(width[best]))
    chunks = math.ceil(blocks / (count * max(1, most // (count * cells_per_block))))
    return Plan(
        cells=cells,
        seeds=seeds,
        devices=count,
        cells_per_block=cells_per_block,
        blocks_per_device=math.ceil(blocks / (count * chunks)),
        chunks=chunks,
        sequential=sequential,
        lane_bytes=lane_bytes,
        budget_bytes=budget_bytes,
    )


def layout(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Which cell and which seed every lane of every chunk is.

    Returns:
        cell [chunks, blocks_per_chunk, cells_per_block] and seed [chunks, blocks_per_chunk]: positions on the sweep's
        axes; -1 marks a cell that is there to fill a block.
    """
    per_seed = math.ceil(plan.cells / plan.cells_per_block)
    cells = np.full(per_seed * plan.cells_per_block, -1)
    cells[: plan.cells] = np.arange(plan.cells)
    blocks = np.tile(cells.reshape(per_seed, plan.cells_per_block), (plan.seeds, 1))
    seeds = np.repeat(np.arange(plan.seeds), per_seed)
    missing = plan.chunks * plan.blocks_per_chunk - len(blocks)
    blocks = np.concatenate([blocks, np.full((missing, plan.cells_per_block), -1)])
    seeds = np.concatenate([seeds, np.zeros(missing, seeds.dtype)])
    return blocks.reshape(plan.chunks, plan.blocks_per_chunk, -1), seeds.reshape(plan.chunks, plan.blocks_per_chunk)


def lane_mesh(devices: list[jax.Device]) -> Mesh:
    """A one-dimensional mesh whose axis holds blocks of lanes."""
    return jax.make_mesh((len(devices),), (LANES,), axis_types=(AxisType.Auto,), devices=devices)


def over_lanes(
    function: Callable[..., Any],
    mesh: Mesh,
    shared: int,
    blocks_in_turn: bool,
    cells_in_turn: bool = False,
    donate: bool = False,
) -> jax.stages.Wrapped:
    """Compile a function of one lane to run on all lanes of a chunk, without any collective.

    Args:
        function: f(*shared arguments, *the lane's own arguments, key).
        mesh: blocks are split over its axis.
        shared: number of leading arguments that all lanes share.
        blocks_in_turn, cells_in_turn: one after another, which needs the memory of one, or as one batch.
        donate: the buffers of the first argument that is a lane's own may be reused for the result.

    Returns:
        The jitted function of (*shared arguments, *lane arguments [blocks, cells, ...], keys [blocks]). A block's key
        is not batched over its cells, so that what depends on it alone is computed once.
    """

    def all_blocks(*arguments: Any) -> Any:
        common = arguments[:shared]

        def block(*lanes: Any) -> Any:
            own, key = lanes[:-1], lanes[-1]
            if jax.tree.leaves(own)[0].shape[0] == 1:
                # Batched over one cell, a branch of the program would be taken both ways.
                alone = function(*common, *jax.tree.map(lambda leaf: leaf[0], own), key)
                return jax.tree.map(lambda leaf: leaf[None], alone)
            if cells_in_turn:
                return jax.lax.map(lambda lane: function(*common, *lane, key), own)
            return jax.vmap(lambda *lane: function(*common, *lane, key))(*own)

        lanes = arguments[shared:]
        return jax.lax.map(lambda one: block(*one), lanes) if blocks_in_turn else jax.vmap(block)(*lanes)

    def spread(*arguments: Any) -> Any:
        whole, split = PartitionSpec(), PartitionSpec(LANES)
        specs = tuple(whole if i < shared else split for i in range(len(arguments)))
        mapped = jax.shard_map(all_blocks, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        return mapped(*arguments)

    return jax.jit(spread, donate_argnums=(shared,) if donate else ())


def map_lanes(function: Callable[..., Any], devices: list[jax.Device], shared: tuple[Any, ...], lanes: Any) -> Any:
    """A function of every trained lane, one lane at a time on each device.

    Args:
        function: f(lane, *shared arguments) -> pytree of arrays.
        devices: devices to spread over.
        shared: arguments that all lanes share, pytrees.
        lanes: pytree with a leading axis over lanes.

    Returns:
        f's results, NumPy arrays with a leading axis over lanes.
    """
    total = len(jax.tree.leaves(lanes)[0])
    mesh = lane_mesh(devices[:total])
    # The last device may be a lane short; it repeats one.
    order = np.arange(-(-total // mesh.size) * mesh.size) % total
    whole, split = PartitionSpec(), PartitionSpec(LANES)

    def spread(own: Any, *common: Any) -> Any:
        return jax.lax.map(lambda lane: function(lane, *common), own)

    mapped = jax.shard_map(
        spread, mesh=mesh, in_specs=(split, *[whole] * len(shared)), out_specs=split, check_vma=False
    )
    own = place(jax.tree.map(lambda leaf: leaf[order], lanes), mesh, split=True)
    found = jax.jit(mapped)(own, *(place(part, mesh, split=False) for part in shared))
    return jax.tree.map(lambda leaf: leaf[:total], jax.device_get(found))


def place(tree: Any, mesh: Mesh, split: bool) -> Any:
    """Put a pytree on the mesh: split over its leading axis, or a copy on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(LANES) if split else PartitionSpec()))

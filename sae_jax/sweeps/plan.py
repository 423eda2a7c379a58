"""How the lanes of a sweep are packed: blocks, chunks, and the memory that they may use."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from sae_jax.settings import AT_LEAST_ONE, NON_NEGATIVE, UserError, check_all, one_of, setting
from sae_jax.storage.memory import available_memory

# The fixed cost of a block's step in units of one lane's step: what makes wide blocks worth some padding.
BLOCK_OVERHEAD = 0.5
# Wider blocks are no faster, and those of more bytes fall out of a CPU's cache.
CPU_CELLS_PER_BLOCK = 32
CPU_BLOCK_BYTES = 10 * 2**20
CPU_MEMORY_SHARE = 0.5
ACCELERATOR_MEMORY_SHARE = 0.8
# What lanes of a chunk use of a device, where the user has not decided: more is no faster, and is all held on the host
# again when the chunk is finished.
CPU_CHUNK_BYTES = 2**29
ACCELERATOR_CHUNK_BYTES = 2**33
BLOCKS = ("auto", "in_turn", "in_parallel")


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a sweep is laid out over devices; what is 0 or auto is chosen from shapes, memory and the backend."""

    devices: int = setting(
        0, NON_NEGATIVE, "devices of every process to spread lanes over; 0 is all, on a CPU one per core"
    )
    data_parallel: int = setting(1, AT_LEAST_ONE, "devices that split every batch between them")
    unit_parallel: int = setting(1, AT_LEAST_ONE, "devices that split the units of every lane between them")
    lanes_per_chunk: int = setting(0, NON_NEGATIVE, "the most lanes trained at once; 0 is chosen from memory")
    cells_per_block: int = setting(
        0, NON_NEGATIVE, "cells of one seed that are stepped as one batch; 0 is chosen from the grid and the devices"
    )
    blocks: str = setting("auto", one_of(BLOCKS), "how a device runs its blocks; auto is in_turn on a CPU")

    def __post_init__(self) -> None:
        check_all(self)

    @property
    def group(self) -> int:
        """How many devices work on one lane."""
        return self.data_parallel * self.unit_parallel


class Plan(NamedTuple):
    """How lanes are packed: a block holds cells of one seed, which share its batches; a chunk is what runs at once.

    Attributes:
        cells, seeds: size of the sweep; lanes = cells * seeds.
        devices: number of them.
        data_parallel, unit_parallel: how many parts a group of them splits every batch, and every lane's units, into.
        cells_per_block: cells in a block; the last block of a seed is filled up with repeats.
        blocks_per_group: blocks that a group of devices holds in one chunk.
        chunks: chunks, one after another.
        sequential: a device runs its blocks one after another, not as one batch.
        lane_bytes: memory of a lane on each device of its group.
        device_bytes: what all lanes of a chunk may use on one device.
        data_bytes: memory of the samples; each accelerator holds a copy.
        state_bytes: of a lane's state in a checkpoint.
        lists: whether lanes that fill a block alone are trained with lists of their active codes.
    """

    cells: int
    seeds: int
    devices: int
    data_parallel: int
    cells_per_block: int
    blocks_per_group: int
    chunks: int
    sequential: bool
    lane_bytes: int
    device_bytes: int
    unit_parallel: int = 1
    data_bytes: int = 0
    state_bytes: int = 0
    lists: bool = False

    @property
    def lanes(self) -> int:
        return self.cells * self.seeds

    @property
    def groups(self) -> int:
        return self.devices // (self.data_parallel * self.unit_parallel)

    @property
    def blocks_per_chunk(self) -> int:
        return self.groups * self.blocks_per_group

    @property
    def sparse(self) -> bool:
        """Whether active codes alone are multiplied. Batched over cells, both ways would be taken."""
        return self.lists and self.sequential and self.cells_per_block == 1

    def __str__(self) -> str:
        kind = jax.default_backend().upper()
        held = self.devices * self.blocks_per_group * self.cells_per_block * self.lane_bytes
        processes = jax.process_count()
        shared = f" of {processes} processes" if processes > 1 else ""
        parts = {"each batch": self.data_parallel, "its units": self.unit_parallel}
        several = [f"{number} that split {what}" for what, number in parts.items() if number > 1]
        split = f" ({' x '.join([str(self.groups), *several])})" if several else ""
        return (
            f"{count(self.lanes, 'lane')} ({count(self.cells, 'cell')} x {count(self.seeds, 'seed')}) on "
            f"{count(self.devices, kind + ' device')}{shared}{split}: {count(self.chunks, 'chunk')} of "
            f"{count(self.blocks_per_chunk, 'block')} of {count(self.cells_per_block, 'cell')} "
            f"{'in turn' if self.sequential else 'in parallel'}{', by active codes alone' if self.sparse else ''}; "
            f"{held / 2**20:,.0f} MiB of {self.devices * self.device_bytes / 2**20:,.0f} MiB, and "
            f"{self.data_bytes / 2**20:,.0f} MiB of samples"
        )


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 lane, 2 lanes."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def memory_budget(devices: list[jax.Device], shared_bytes: int) -> int:
    """Bytes that lanes may use on each of the devices, `shared_bytes` for all of its lanes set aside."""
    if devices[0].platform == "cpu":
        available = CPU_MEMORY_SHARE * available_memory() / len(devices)
    else:
        stats = devices[0].memory_stats() or {}
        available = ACCELERATOR_MEMORY_SHARE * (stats.get("bytes_limit", 2**33) - stats.get("bytes_in_use", 0))
    return int(available) - shared_bytes


def devices_that_fit(devices: list[jax.Device], shared_bytes: int, lane_bytes: int) -> list[jax.Device]:
    """As many of the devices as have memory for one lane each, at least one; arguments as in `make_plan`."""
    fitting = [n for n in range(1, len(devices) + 1) if memory_budget(devices[:n], shared_bytes) >= lane_bytes]
    return devices[: max(fitting, default=1)]


def make_plan(
    cells: int,
    seeds: int,
    devices: list[jax.Device],
    lane_bytes: int,
    device_bytes: int,
    engine: Engine = Engine(),
    widest_block: int = 0,
    worked_bytes: int = 0,
    host_bytes: int = 0,
) -> Plan:
    """Pack cells x seeds lanes into blocks and chunks so that the devices end together and memory suffices.

    Args:
        cells, seeds: size of the sweep.
        devices: devices to spread over, a multiple of `engine.group`.
        lane_bytes: memory of one lane on each device of its group.
        device_bytes: memory of all lanes of a chunk on one device.
        engine: what the user has decided.
        widest_block: the most cells of a block, where the user has not decided; 0 leaves it to the devices.
        worked_bytes: what a step of a lane passes through a CPU's cache; 0 is lane_bytes.
        host_bytes: what is held of a lane on the host while its chunk is trained.

    Raises:
        UserError: not even one lane per device fits, or not one block of the wanted size.
    """
    groups = len(devices) // engine.group
    on_cpu = devices[0].platform == "cpu"
    fitting = device_bytes // lane_bytes
    if fitting < 1:
        raise UserError(
            f"a lane per device must fit in memory: {len(devices)} x {lane_bytes / 2**20:,.0f} MiB needed, "
            f"{len(devices) * max(device_bytes, 0) / 2**20:,.0f} MiB available; "
            "use a smaller d_hidden, batch_size or history_size, a larger unit_parallel, or fewer devices"
        )
    chunk_bytes = CPU_CHUNK_BYTES if on_cpu else ACCELERATOR_CHUNK_BYTES
    enough = max(chunk_bytes // (lane_bytes + host_bytes), engine.cells_per_block, 1)
    # Lanes of a group in one chunk.
    most = min(fitting, max(engine.lanes_per_chunk // groups, 1) if engine.lanes_per_chunk else enough)
    if engine.cells_per_block:
        cells_per_block = min(cells, engine.cells_per_block)
        if cells_per_block > most:
            raise UserError(
                f"a block must fit into its devices' share of a chunk, {count(most, 'lane')}: got cells_per_block "
                f"{engine.cells_per_block}; use a smaller cells_per_block or a larger lanes_per_chunk"
            )
    else:
        cached = max(1, min(CPU_CELLS_PER_BLOCK, CPU_BLOCK_BYTES // (worked_bytes or lane_bytes))) if on_cpu else cells
        widest = min(cells, most, widest_block or cached)
        splits = np.arange(math.ceil(cells / widest), cells + 1)  # blocks per seed
        width = np.ceil(cells / splits)
        best = int(np.argmin(np.ceil(seeds * splits / groups) * (width + BLOCK_OVERHEAD)))
        cells_per_block = int(width[best])
    blocks = seeds * math.ceil(cells / cells_per_block)
    chunks = math.ceil(blocks / (groups * (most // cells_per_block)))
    return Plan(
        cells=cells,
        seeds=seeds,
        devices=len(devices),
        data_parallel=engine.data_parallel,
        cells_per_block=cells_per_block,
        blocks_per_group=math.ceil(blocks / (groups * chunks)),
        chunks=chunks,
        sequential=engine.blocks == "in_turn" or (engine.blocks == "auto" and on_cpu),
        lane_bytes=lane_bytes,
        device_bytes=device_bytes,
        unit_parallel=engine.unit_parallel,
    )


class Chunk(NamedTuple):
    """Lanes that are trained at once. Lanes are numbered seed by seed: lane = position of its seed * cells + its cell.

    Attributes:
        first: number of its first lane; the others follow without a gap.
        cells: position of every lane among the cells, [blocks, cells_per_block]; -1 fills a block up.
        seeds: position of every block among the seeds, [blocks].
    """

    first: int
    cells: np.ndarray
    seeds: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """Which of its places hold a lane, [blocks, cells_per_block]."""
        return self.cells >= 0

    @property
    def end(self) -> int:
        """Number of the lane after its last one."""
        return self.first + int(np.sum(self.real))


def chunk_at(plan: Plan, first: int) -> Chunk:
    """The chunk that begins with a lane: as many blocks as a plan has for a chunk, filled up with empty ones."""
    cells = np.full((plan.blocks_per_chunk, plan.cells_per_block), -1)
    seeds = np.zeros(plan.blocks_per_chunk, int)
    lane = first
    for block in range(plan.blocks_per_chunk):
        if lane == plan.lanes:
            break
        seeds[block], cell = divmod(lane, plan.cells)
        width = min(plan.cells_per_block, plan.cells - cell)
        cells[block, :width] = np.arange(cell, cell + width)
        lane += width
    return Chunk(first, cells, seeds)


def repacked(plan: Plan, cells_per_block: int, blocks_per_group: int) -> Plan:
    """The same lanes in blocks and chunks of other sizes.

    Raises:
        UserError: a block would be larger than all cells, or a group's share larger than all blocks.
    """
    blocks = plan.seeds * math.ceil(plan.cells / cells_per_block)
    if cells_per_block > plan.cells or blocks_per_group > blocks:
        raise UserError(
            f"cannot resume: the run has {count(blocks_per_group, 'block')} of {count(cells_per_block, 'cell')} "
            f"on a device, this sweep has {count(blocks, 'block')} of {count(plan.cells, 'cell')} in all; "
            "choose another --name"
        )
    chunks = math.ceil(blocks / (plan.groups * blocks_per_group))
    return plan._replace(cells_per_block=cells_per_block, blocks_per_group=blocks_per_group, chunks=chunks)


def halved(plan: Plan) -> Plan | None:
    """The same lanes in chunks of half the size; None where a device holds a single lane."""
    if plan.blocks_per_group > 1:
        return repacked(plan, plan.cells_per_block, math.ceil(plan.blocks_per_group / 2))
    return repacked(plan, math.ceil(plan.cells_per_block / 2), 1) if plan.cells_per_block > 1 else None

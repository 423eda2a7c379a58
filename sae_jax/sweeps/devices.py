"""Devices, and functions of one lane made to run on all lanes of a chunk."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from sae_jax.settings import UserError
from sae_jax.sweeps import processes as distributed

LANES, BATCH = "lanes", "batch"
# What processes send each other of the results at a time.
GATHERED_BYTES = 2**26


def choose_devices(wanted: int = 0) -> list[jax.Device]:
    """The devices to spread lanes over: as many of every process as wanted; where that is 0 all, on a CPU one per core.

    Lanes over several CPU devices are 1.4 to 2.3 times faster than on one, whose products spread over all cores. The
    number of CPU devices is fixed by the first JAX computation of the process; after that, what exists is used.

    Raises:
        UserError: fewer devices exist than are wanted.
    """
    if wanted < 0:
        raise UserError(f"devices must be >= 0: got {wanted}; 0 is all")
    reserve_cpu_devices(wanted)
    available = jax.local_devices()
    if wanted > len(available):
        raise UserError(
            f"devices must be at most what JAX has: got {wanted} of {len(available)} {jax.default_backend()} devices; "
            f"use {len(available)} or less"
        )
    by_process = [[one for one in jax.devices() if one.process_index == i] for i in range(jax.process_count())]
    return [one for devices in by_process for one in devices[: wanted or None]]


def reserve_cpu_devices(wanted: int = 0) -> None:
    """Have JAX make at least so many CPU devices, or one per core, unless it has made them already."""
    with contextlib.suppress(RuntimeError):  # JAX has computed something already.
        chosen_before = max(jax.config.values["jax_num_cpu_devices"], 0)
        jax.config.update("jax_num_cpu_devices", max(wanted or 1, chosen_before or cpu_cores()))


def own_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """Those of the devices that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_description(devices: list[jax.Device]) -> str:
    """Processor, cores and kind of device, in words."""
    return f"{platform.machine()}, {cpu_cores()} cores, {devices[0].device_kind}"


def lane_mesh(devices: list[jax.Device], data_parallel: int = 1) -> Mesh:
    """A mesh (lanes, batch): blocks of lanes over its first axis, the rows of every batch over its second."""
    shape = (len(devices) // data_parallel, data_parallel)
    return jax.make_mesh(shape, (LANES, BATCH), axis_types=(AxisType.Auto,) * 2, devices=devices)


def batch_axis(mesh: Mesh) -> str | None:
    """The named axis over which every batch is split; None where it lies whole on one device."""
    return BATCH if mesh.shape[BATCH] > 1 else None


def over_lanes(
    function: Callable[..., Any],
    mesh: Mesh,
    shared: int,
    blocks_in_turn: bool,
    cells_in_turn: bool = False,
    in_place: bool = False,
) -> jax.stages.Wrapped:
    """Compile a function of one lane to run on all lanes of a chunk; the only collectives are the function's own.

    Args:
        function: f(*shared arguments, *the lane's own arguments, key).
        mesh: blocks are split over its axis of lanes, and every device along the other axis works on all of a block.
        shared: number of leading arguments that all lanes share.
        blocks_in_turn, cells_in_turn: one after another, which needs the memory of one, or as one batch.
        in_place: the function returns (what the first of the lane's own arguments has become, anything else); the
            argument's memory is the result's.

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
        if not blocks_in_turn:
            return jax.vmap(block)(*lanes)
        return _in_turn_in_place(block, *lanes) if in_place else jax.lax.map(lambda one: block(*one), lanes)

    def spread(*arguments: Any) -> Any:
        whole, split = PartitionSpec(), PartitionSpec(LANES)
        specs = tuple(whole if i < shared else split for i in range(len(arguments)))
        mapped = jax.shard_map(all_blocks, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        return mapped(*arguments)

    return jax.jit(spread, donate_argnums=(shared,) if in_place else ())


def _in_turn_in_place(block: Callable[..., tuple[Any, Any]], blocks: Any, *others: Any) -> tuple[Any, Any]:
    """What `lax.map` would return, but each block's first result is written over its first argument.

    `lax.map` keeps arguments until the last block is done, and its results lie elsewhere.
    """

    def one(blocks: Any, turn: tuple[Array, Any]) -> tuple[Any, Any]:
        i, own = turn
        first = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), blocks)
        first, rest = block(first, *own)
        return jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, i, 0), blocks, first), rest

    number = jax.tree.leaves(blocks)[0].shape[0]
    return jax.lax.scan(one, blocks, (jnp.arange(number), others))


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
    """Put a pytree, which every process holds whole, on the mesh: split over its leading axis, or a copy everywhere."""
    sharding = NamedSharding(mesh, PartitionSpec(LANES) if split else PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index]), tree
    )


def place_keys(seeds: np.ndarray, mesh: Mesh) -> Array:
    """The PRNG keys of blocks' seeds, uint32 [blocks], split over the mesh."""
    keys = jax.jit(_keys_of, out_shardings=NamedSharding(mesh, PartitionSpec(LANES)))
    return keys(place(seeds, mesh, split=True))


_keys_of = jax.vmap(jax.random.key)


def from_leader(
    phase: distributed.Phase, ours: Callable[[], dict[str, np.ndarray]], expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Arrays that only the first process has, on every one; all must call it.

    Args:
        phase: where the processes stand.
        ours: makes them, on the first process; where it refuses its input, it does so on all.
        expected: their shapes and dtypes by name.
    """
    if not distributed.started():
        return ours()
    arrays = distributed.together(phase, lambda: ours() if distributed.leads() else None)
    told = {
        name: np.array(arrays[name]) if arrays else np.empty(one.shape, one.dtype) for name, one in expected.items()
    }
    for values in told.values():
        # As bytes: what is broadcast is a sum over processes, which does not keep the sign of a zero. And a few at a
        # time, since every device receives a copy.
        content = values.reshape(-1).view(np.uint8)
        for start in range(0, content.size, GATHERED_BYTES):
            part = content[start : start + GATHERED_BYTES]
            part[:] = multihost_utils.broadcast_one_to_all(part, is_source=distributed.leads())
    return told


def fetch(tree: Any, mesh: Mesh) -> Any:
    """A pytree of arrays that are split over lanes, as NumPy arrays; on every process, all of which must call it.

    Arrays of other processes come a few blocks at a time, since every device receives a copy.
    """
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    leaves = jax.tree.leaves(tree)
    groups, blocks = mesh.shape[LANES], len(leaves[0]) // mesh.shape[LANES]
    rows = int(np.clip(GATHERED_BYTES * blocks // sum(leaf.nbytes for leaf in leaves), 1, blocks))
    whole = jax.tree.map(lambda leaf: np.empty((groups, blocks, *leaf.shape[1:]), leaf.dtype), tree)
    for start in range(0, blocks, rows):
        # The last rows may be fetched twice, so that one program does for all.
        first = min(start, blocks - rows)
        part = jax.device_get(_gathered(mesh, rows)(tree, np.int32(first)))
        for there, here in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            there[:, first : first + rows] = here
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), whole)


@functools.lru_cache(maxsize=8)
def _gathered(mesh: Mesh, rows: int) -> jax.stages.Wrapped:
    """f(tree, first): the same rows of every device's blocks, on every device, [groups, rows, ...]."""

    def own(tree: Any, first: Array) -> Any:
        part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, rows), tree)
        return jax.lax.all_gather(part, LANES)

    split, whole = PartitionSpec(LANES), PartitionSpec()
    return jax.jit(jax.shard_map(own, mesh=mesh, in_specs=(split, whole), out_specs=whole, check_vma=False))

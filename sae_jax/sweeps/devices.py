"""Devices, the mesh over them, and arrays that lie on it."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from sae_jax.settings import UserError
from sae_jax.storage.arrays import is_aligned
from sae_jax.sweeps import processes

LANES, BATCH, UNITS = "lanes", "batch", "units"
# What processes send each other of the results at a time.
GATHERED_BYTES = 2**26
# JAX makes as many CPU devices in half a second, 4 times as many in 2 seconds, and 20 times as many in minutes.
MOST_DEVICES = 1024
# Linux: the mappings of this process, a line each, and how many it may have. A compiled program takes many of them.
MAPPINGS, MOST_MAPPINGS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def choose_devices(number: int = 0) -> list[jax.Device]:
    """The devices to spread lanes over: so many of every process; 0 is all, on a CPU one per core.

    Lanes over several CPU devices are 1.4 to 2.3 times faster than on one, whose products spread over all cores. The
    number of CPU devices is fixed by the first JAX computation of the process; after that, what exists is used.

    Raises:
        UserError: fewer devices exist, or more are asked for than JAX makes in a sensible time.
    """
    if number < 0:
        raise UserError(f"devices must be >= 0: got {number}; 0 is all")
    reserve_cpu_devices(number)
    available = jax.local_devices()
    if number > len(available):
        raise UserError(
            f"devices must be at most what JAX has: got {number} of {len(available)} {jax.default_backend()} devices; "
            f"use {len(available)} or less"
        )
    by_process = [[one for one in jax.devices() if one.process_index == i] for i in range(jax.process_count())]
    return [device for devices in by_process for device in devices[: number or None]]


def reserve_cpu_devices(number: int = 0) -> None:
    """Have JAX make at least so many CPU devices, or one per core, unless it has made them already.

    Raises:
        UserError: more are asked for than JAX makes in a sensible time.
    """
    if number > (most := max(MOST_DEVICES, cpu_cores())):
        raise UserError(f"devices must be at most {most}: got {number}; 0 is all, on a CPU one per core")
    with contextlib.suppress(RuntimeError):  # JAX has computed something already.
        configured = max(jax.config.values["jax_num_cpu_devices"], 0)
        jax.config.update("jax_num_cpu_devices", max(number or 1, configured or cpu_cores()))


def release_programs() -> None:
    """Let JAX forget what it has compiled, where its programs take half of the memory mappings a process may have.

    A sweep of one shape takes some 400 of Linux's 65,530; a process that asks for more ends with a segmentation fault.
    What is used again is compiled again.
    """
    with contextlib.suppress(OSError):  # Other systems have no such files.
        if MAPPINGS.read_bytes().count(b"\n") > int(MOST_MAPPINGS.read_text(encoding="utf-8")) // 2:
            jax.clear_caches()


def idle_cores() -> str:
    """A line about cores that no lane is trained on, since JAX had made its devices before; "" where none are idle.

    Whoever has said how many devices there are to be wants no line.
    """
    if jax.default_backend() != "cpu" or jax.config.values["jax_num_cpu_devices"] > 0:
        return ""
    cores, devices = cpu_cores(), len(jax.local_devices())
    if devices >= cores or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return ""
    return (
        f"lanes are trained on {devices} of {cores} possible CPU devices, and slower for it: JAX had computed "
        f'something before; put jax.config.update("jax_num_cpu_devices", {cores}) before the first computation'
    )


def local_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """Those of the devices that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_description(devices: list[jax.Device]) -> str:
    """Processor, cores and kind of device, in words."""
    return f"{platform.machine()}, {cpu_cores()} cores, {devices[0].device_kind}"


def lane_mesh(devices: list[jax.Device], data_parallel: int = 1, unit_parallel: int = 1) -> Mesh:
    """A mesh (lanes, batch, units): blocks of lanes over its first axis, the rows of every batch over its second, the
    units of every lane over its third.
    """
    shape = (len(devices) // (data_parallel * unit_parallel), data_parallel, unit_parallel)
    return jax.make_mesh(shape, (LANES, BATCH, UNITS), axis_types=(AxisType.Auto,) * 3, devices=devices)


def lanes_spec(leaf: Any, mesh: Mesh, units: int) -> PartitionSpec:
    """How an array [blocks, cells, ...] lies on the mesh: over its blocks and, where they are split, over its units.

    Args:
        leaf: array or what has its shape.
        mesh: the devices.
        units: of a lane; the first axis of this length is taken for that of the units. Which one is split changes no
            result.
    """
    if mesh.shape[UNITS] == 1 or units not in leaf.shape[2:]:
        return PartitionSpec(LANES)
    axis = leaf.shape.index(units, 2)
    return PartitionSpec(LANES, *[None] * (axis - 1), UNITS)


def batch_axis(mesh: Mesh) -> str | None:
    """The named axis over which every batch is split; None where it lies whole on one device."""
    return BATCH if mesh.shape[BATCH] > 1 else None


def place(tree: Any, mesh: Mesh, split: bool, units: int = 0) -> Any:
    """Put a pytree on the mesh: split over its blocks and, by `lanes_spec`, over its units, or a copy everywhere.

    Every process holds its arrays whole, but for those that lie there already.

    Args:
        tree: arrays.
        mesh: the devices.
        split: whether their first axis is that of blocks.
        units: of a lane, where these are split, too; 0 leaves them whole.
    """

    def placed(leaf: Any) -> Array:
        sharding = NamedSharding(mesh, lanes_spec(leaf, mesh, units) if split else PartitionSpec())
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(placed, tree)


def copied_bytes(tree: Any, devices: list[jax.Device]) -> int:
    """Memory that one of the devices needs for its copy of a pytree; a CPU reads aligned arrays where they lie."""
    on_cpu = devices[0].platform == "cpu"
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if not (on_cpu and is_aligned(leaf)))


def place_keys(seeds: np.ndarray, mesh: Mesh) -> Array:
    """The PRNG keys of blocks' seeds, uint32 [blocks], split over the mesh."""
    keys = jax.jit(_keys_of, out_shardings=NamedSharding(mesh, PartitionSpec(LANES)))
    return keys(place(seeds, mesh, split=True))


_keys_of = jax.vmap(jax.random.key)


def from_leader(
    phase: processes.Phase, read: Callable[[], dict[str, np.ndarray]], expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Arrays that only the first process has, on every one; all must call it.

    Args:
        phase: where the processes stand.
        read: makes them, on the first process; where it refuses its input, it does so on all.
        expected: their shapes and dtypes by name.
    """
    if not processes.started():
        return read()
    arrays = processes.together(phase, lambda: read() if processes.leads() else None)
    received = {
        name: np.array(arrays[name]) if arrays else np.empty(shape.shape, shape.dtype)
        for name, shape in expected.items()
    }
    for values in received.values():
        # As bytes: what is broadcast is a sum over processes, which does not keep the sign of a zero. And a few at a
        # time, since every device receives a copy.
        content = values.reshape(-1).view(np.uint8)
        for start in range(0, content.size, GATHERED_BYTES):
            part = content[start : start + GATHERED_BYTES]
            part[:] = multihost_utils.broadcast_one_to_all(part, is_source=processes.leads())
    return received


def fetch(tree: Any, mesh: Mesh) -> Any:
    """A pytree of arrays that are split over lanes and units, as NumPy arrays; on every process, and all must call it.

    Arrays of other processes come a few blocks at a time, since every device receives a copy, with all of their units.
    """
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    leaves = jax.tree.leaves(tree)
    if mesh.shape[UNITS] > 1 and len(leaves) > 1:
        # A device may have no room for a lane with all of its units: one array at a time.
        return jax.tree.map(lambda leaf: fetch(leaf, mesh), tree)
    groups, blocks = mesh.shape[LANES], len(leaves[0]) // mesh.shape[LANES]
    rows = int(np.clip(GATHERED_BYTES * blocks // sum(leaf.nbytes for leaf in leaves), 1, blocks))
    whole = jax.tree.map(lambda leaf: np.empty((groups, blocks, *leaf.shape[1:]), leaf.dtype), tree)
    for start in range(0, blocks, rows):
        # The last rows may be fetched twice, so that one program does for all.
        first = min(start, blocks - rows)
        part = jax.device_get(_gathered(mesh, rows)(tree, np.int32(first)))
        for target, source in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            target[:, first : first + rows] = source
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), whole)


@functools.lru_cache(maxsize=8)
def _gathered(mesh: Mesh, rows: int) -> jax.stages.Wrapped:
    """f(tree, first): the same rows of every device's blocks, on every device, [groups, rows, ...]."""

    def gathered(tree: Any, first: Array) -> Any:
        part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, rows), tree)
        return jax.lax.all_gather(part, LANES)

    split, whole = PartitionSpec(LANES), PartitionSpec()
    return jax.jit(jax.shard_map(gathered, mesh=mesh, in_specs=(split, whole), out_specs=whole, check_vma=False))

"""Functions of one lane, made to run on all lanes of a chunk or of a finished sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from sae_jax.sweeps.devices import BATCH, LANES, UNITS, lane_mesh, lanes_spec, place, release_programs


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
        function: f(*shared arguments, *arguments of the lane, key).
        mesh: blocks are split over its axis of lanes, and every device along the other axis works on all of a block.
        shared: number of leading arguments that all lanes share.
        blocks_in_turn, cells_in_turn: one after another, which needs the memory of one, or as one batch.
        in_place: the function returns (what the first of the lane's arguments has become, anything else); the
            argument's memory is the result's.

    Returns:
        The jitted function of (*shared arguments, *lane arguments [blocks, cells, ...], keys [blocks]). A block's key
        is not batched over its cells, so that what depends on it alone is computed once.
    """

    def all_blocks(*arguments: Any) -> Any:
        common = arguments[:shared]

        def block(*lanes: Any) -> Any:
            cells, key = lanes[:-1], lanes[-1]
            if jax.tree.leaves(cells)[0].shape[0] == 1:
                # Batched over one cell, a branch of the program would be taken both ways.
                alone = function(*common, *jax.tree.map(lambda leaf: leaf[0], cells), key)
                return jax.tree.map(lambda leaf: leaf[None], alone)
            if cells_in_turn:
                return jax.lax.map(lambda lane: function(*common, *lane, key), cells)
            return jax.vmap(lambda *lane: function(*common, *lane, key))(*cells)

        lanes = arguments[shared:]
        if not blocks_in_turn:
            return jax.vmap(block)(*lanes)
        return _in_turn_in_place(block, *lanes) if in_place else jax.lax.map(lambda one: block(*one), lanes)

    def spread(*arguments: Any) -> Any:
        whole, split = PartitionSpec(), PartitionSpec(LANES)
        specs = tuple(whole if i < shared else split for i in range(len(arguments)))
        if mesh.shape[UNITS] == 1:
            return jax.shard_map(all_blocks, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(*arguments)
        # XLA splits the units: what is computed of them says nothing of devices.
        mapped = jax.shard_map(
            all_blocks, mesh=mesh, in_specs=specs, out_specs=split, axis_names={LANES, BATCH}, check_vma=False
        )
        units = arguments[-2].model.d_hidden
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, lanes_spec(leaf, mesh, units))),
            mapped(*arguments),
        )

    return jax.jit(spread, donate_argnums=(shared,) if in_place else ())


def _in_turn_in_place(block: Callable[..., tuple[Any, Any]], blocks: Any, *others: Any) -> tuple[Any, Any]:
    """What `lax.map` would return, but each block's first result is written over its first argument.

    `lax.map` keeps arguments until the last block is done, and its results lie elsewhere.
    """

    def one(blocks: Any, turn: tuple[Array, Any]) -> tuple[Any, Any]:
        i, rest = turn
        first = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), blocks)
        first, result = block(first, *rest)
        return jax.tree.map(
            lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, i, 0), blocks, first
        ), result

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
    release_programs()
    total = len(jax.tree.leaves(lanes)[0])
    mesh = lane_mesh(devices[:total])
    # The last device may be a lane short; it repeats one.
    order = np.arange(-(-total // mesh.size) * mesh.size) % total
    whole, split = PartitionSpec(), PartitionSpec(LANES)

    def spread(part: Any, *common: Any) -> Any:
        return jax.lax.map(lambda lane: function(lane, *common), part)

    mapped = jax.shard_map(
        spread, mesh=mesh, in_specs=(split, *[whole] * len(shared)), out_specs=split, check_vma=False
    )
    placed = place(jax.tree.map(lambda leaf: leaf[order], lanes), mesh, split=True)
    results = jax.jit(mapped)(placed, *(place(part, mesh, split=False) for part in shared))
    return jax.tree.map(lambda leaf: leaf[:total], jax.device_get(results))

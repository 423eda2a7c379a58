"""Training all lanes of a program, a chunk at a time, in as much memory as there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax.errors import JaxRuntimeError

from sae_jax.settings import UserError
from sae_jax.storage.checkpoints import Arrays, Position
from sae_jax.sweeps.chunk import measured_shapes, position_at, progress_of, train_chunk
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.plan import Plan, chunk_at, halved, repacked
from sae_jax.sweeps.processes import started
from sae_jax.sweeps.program_lanes import Lanes, indices_of
from sae_jax.sweeps.recovery import Recovery, position_of, read_finished, save_finished

# Takes a finished chunk's lanes: arrays by variable name [lanes, ...], positions among cells and seeds [lanes].
Put = Callable[[Arrays, np.ndarray, np.ndarray], None]


def run_lanes(lanes: Lanes, put: Put, observer: Observer, recovery: Recovery | None = None) -> None:
    """Train and measure all lanes of a program.

    Args:
        lanes: what is trained.
        put: takes a finished chunk's lanes, for good.
        observer: receives progress and points.
        recovery: saves chunks while they are trained and afterwards, and knows those saved before; None keeps nothing.

    Raises:
        Interrupted: the recovery was asked to end.
        UserError: not even one lane a device fits in memory, or what was saved is not of these lanes.
    """
    plan, first = lanes.program.plan, 0
    observer.progress(progress_of(lanes, plan, 0, "compiling"))
    while first < plan.lanes:
        position = position_of(recovery, lanes.number, first) if recovery else None
        if position:
            plan = repacked(plan, position.cells_per_block, position.blocks_per_group)
        measured: Arrays | None
        if recovery and position and position.finished:
            measured = read_finished(recovery, position, measured_shapes(lanes, plan, first))
        else:
            measured, plan = train_within_memory(lanes, plan, first, position, observer, recovery)
            finished = position_at(lanes, plan, first, lanes.steps, finished=True)
            measured = save_finished(recovery, finished, measured) if recovery else measured
        chunk = chunk_at(plan, first)
        if measured is not None:
            put(measured, *indices_of(lanes, chunk))
        first = chunk.end


def train_within_memory(
    lanes: Lanes, plan: Plan, first: int, position: Position | None, observer: Observer, recovery: Recovery | None
) -> tuple[Arrays, Plan]:
    """`train_chunk`, or the same of a chunk of half the size where memory does not hold it; also returns its plan."""
    while True:
        try:
            return train_chunk(lanes, plan, first, position, observer, recovery), plan
        except JaxRuntimeError as error:
            # Processes that train together may not all know that one of them has no memory left.
            if "RESOURCE_EXHAUSTED" not in str(error) or started():
                raise
            reason, smaller = str(error).splitlines()[0], halved(plan)
        if smaller is None:
            raise UserError(
                f"a lane per device must fit in memory: got {plan.lane_bytes / 2**20:,.0f} MiB a lane, "
                f"and {reason}; use a smaller d_hidden, batch_size or history_size, "
                "or fewer devices"
            )
        observer.line(f"warning: a chunk must fit in memory: got {reason}; going on with chunks of half the size")
        observer.line(f"plan: {smaller}")
        plan, position = smaller, None

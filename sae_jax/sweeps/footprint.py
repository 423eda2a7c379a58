"""How much room a run takes on the disk: its files, and what it needs beside them until it is finished."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sae_jax.sweeps.dataset import shape_of, variables_of_all
from sae_jax.sweeps.program import Point
from sae_jax.sweeps.recovery import STATES
from sae_jax.sweeps.study import Study
from sae_jax.training.lane import snapshot_bytes


class Footprint(NamedTuple):
    """Bytes on the disk.

    Attributes:
        results: results.nc and params.safetensors, together.
        unfinished: the most that lies beside them until the run is finished: its checkpoints, and the arrays that the
            results are made of.
    """

    results: int
    unfinished: int

    def __str__(self) -> str:
        return (
            f"{megabytes(self.results)} of results, up to {megabytes(self.unfinished)} of checkpoints while it trains"
        )


def footprint_of(study: Study, keep: str, keep_state: bool = False) -> Footprint:
    """The room that a study takes, from its shapes; what is compressed takes a little less.

    Args:
        study: what is to be trained.
        keep: whose parameters the results hold, see `keep_parameters`.
        keep_state: whether they hold what lanes carry, too.
    """
    sizes = [
        (variable.kind, math.prod(shape_of(study, variable)) * np.dtype(variable.dtype).itemsize)
        for variable in variables_of_all(study.points).values()
    ]
    parameters = sum(size for kind, size in sizes if kind == "parameter")
    state_bytes = sum(program.plan.lanes * program.plan.state_bytes for program in study.programs) * keep_state
    arrays = sum(size for _, size in sizes) + state_bytes
    # Of a lane's decoder rows at some steps nothing is left in the results.
    held = arrays + sum(program.plan.lanes * _rows_of(study.points[program.point]) for program in study.programs)
    share = {"all": 1.0, "best": 1 / len(study.grid.seeds), "none": 0.0}[keep]
    states = 0
    for plan, point in ((program.plan, study.points[program.point]) for program in study.programs):
        at_once = min(plan.blocks_per_chunk * plan.cells_per_block, plan.lanes)
        states = max(states, at_once * (plan.state_bytes + _rows_of(point)))
    # While a state is written, those before it are still there. Finished lanes lie in checkpoints of their own, and in
    # the arrays of all lanes, which are made when the first chunk is finished.
    training, finished = (STATES + 1) * states, 2 * held + STATES * states
    several = sum(program.plan.chunks for program in study.programs) > 1
    return Footprint(
        int(arrays - parameters + share * parameters),
        2 * held + training if several else max(training, finished),
    )


def _rows_of(point: Point) -> int:
    return snapshot_bytes(point.settings, point.data.train.shape[1])


def megabytes(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"

"""What a page holds of every lane's units: firing rates, mean activations and decoder rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import cell_axes
from sae_jax.analysis.filters import FIRING_RATE
from sae_jax.pages.packing import Packer, Room, as_bytes
from sae_jax.storage.description import PARAMETERS_SEED
from sae_jax.sweeps.lane_warnings import MEAN_ACTIVATION
from sae_jax.training.lane import ROWS

OF_UNITS = {"rate": FIRING_RATE, "mean": MEAN_ACTIVATION, "largest": "eval_max_activation"}
# A weight, as a share of the largest one of its row, is 128 + 127 times it as a byte, so that 0 stays 0.
LOWEST = -128 / 127


def lane_parts(
    dataset: xr.Dataset, order: Sequence[int], packer: Packer, size: float, left_out: list[str]
) -> dict[int, dict[str, Any]]:
    """What is known of the units of every lane, by the lane's number; lanes of an order as long as there is room.

    Args:
        dataset: of a run, as `with_presence` gives it.
        order: lanes by number, those that are given room first in front.
        packer: takes the arrays.
        size: bytes for all of them.
        left_out: is told in words what the page leaves out.
    """
    lanes: dict[int, dict[str, Any]] = {}
    numbers, rows = Room(size / 3), Room(2 * size / 3)
    variables = {part: dataset[name] for part, name in OF_UNITS.items() if name in dataset}
    without = {"numbers": 0, "rows": 0}
    for number in order:
        place = place_of(dataset, number)
        values = {part: variable.isel(place).values for part, variable in variables.items()}
        units = max([int(np.isfinite(one).sum()) for one in values.values()], default=0)
        lane: dict[str, Any] = {"units": units}
        if numbers.take(4 * units * len(values)):
            lane |= {part: packer.put(one[:units], exact=True) for part, one in values.items()}
        else:
            without["numbers"] += 1
        weights = decoder_rows(dataset, place)
        if weights is not None and rows.take(weights.size + 4 * len(weights)):
            largest = np.abs(weights).max(axis=1)
            scaled = weights / np.where(largest > 0, largest, 1)[:, None]
            lane |= {"rows": packer.put(as_bytes(scaled, LOWEST, 1)), "largest_weights": packer.put(largest)}
            lane |= _shape(dataset.isel(place))
            lane["units"] = max(units, len(weights))
        elif weights is not None:
            without["rows"] += 1
        lanes[number] = lane
    what = {"numbers": "firing rates and mean activations of units", "rows": "decoder rows"}
    for name, count in without.items():
        if count:
            left_out.append(
                f"For want of room, {what[name]} of {count} of {len(order)} lanes are left out: those of every "
                "cell's best seed come first."
            )
    return lanes


def place_of(dataset: xr.Dataset, number: int) -> dict[str, int]:
    """Where a lane stands along the axes and seed: lanes are numbered cell by cell, the seeds fastest."""
    dims = [*cell_axes(dataset), "seed"]
    index = np.unravel_index(number, [dataset.sizes[dim] for dim in dims])
    return {dim: int(position) for dim, position in zip(dims, index, strict=True)}


def decoder_rows(dataset: xr.Dataset, place: dict[str, int]) -> np.ndarray | None:
    """The decoder rows of a lane, [units, inputs or targets]; None where they are not there, or no numbers."""
    if ROWS not in dataset:
        return None
    if "seed" not in dataset[ROWS].dims:
        cell = {dim: position for dim, position in place.items() if dim != "seed"}
        if int(dataset[PARAMETERS_SEED].isel(cell)) != int(dataset["seed"][place["seed"]]):
            return None
        place = cell
    rows = dataset[ROWS].isel(place).values.astype(np.float32)
    rows = rows[np.isfinite(rows).any(axis=1)]
    rows = rows[:, np.isfinite(rows).any(axis=0)] if len(rows) else rows
    return rows if len(rows) and np.isfinite(rows).all() else None


def _shape(lane: xr.Dataset) -> dict[str, Any]:
    """(height, width) of a lane's decoder rows, where they are images."""
    sides = [int(lane[name]) for name in ("image_height", "image_width") if name in lane]
    return {"shape": sides} if len(sides) == 2 and min(sides) > 0 else {}

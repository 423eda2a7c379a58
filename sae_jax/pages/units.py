"""What a page holds of a lane's units one by one: samples, a histogram, units like it, and matches in other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import cell_axes
from sae_jax.analysis.cosines import nearest_rows
from sae_jax.analysis.lanes import Lanes, trained
from sae_jax.analysis.unit_variables import DENSE_ABOVE, rule_of
from sae_jax.analysis.units import lane_of, other_seeds, place_of
from sae_jax.data import Data
from sae_jax.pages.activity import QUANTILES, activity
from sae_jax.pages.packing import Packer, Room, as_bytes
from sae_jax.settings import UserError, printable
from sae_jax.sweeps.keep import need_parameters
from sae_jax.sweeps.reading import grid_of
from sae_jax.training.lane import ROWS

NEAREST = 5
# Letters of a sample's name that are held and searched; a list shows fewer.
NAME_LENGTH = 1000
# Codes that are held at once, and additions and multiplications for all lanes of a page: some seconds.
MOST_CODES, MOST_WORK = 2**25, 1e11
# Work that goes into a code beside encoding: sorting and counting, in additions of about the same time.
WORK_OF_A_CODE = 200


class Looked(NamedTuple):
    """What the page holds of units.

    Attributes:
        lanes: by the lane's number.
        samples: by data set: numbers, and pictures or names.
    """

    lanes: dict[int, dict[str, Any]]
    samples: list[dict[str, Any]]


def run_lanes(dataset: xr.Dataset, data: Data | None, left_out: list[str], needed: bool) -> list[Lanes]:
    """The lanes of a run with its samples; none where it has kept no parameters or the samples cannot be had.

    Args:
        dataset: of the run.
        data: its samples, where they are at hand; None loads them again.
        left_out: is told in words why there are none.
        needed: whether that is an error.

    Raises:
        UserError: they are needed, and there are none.
    """
    try:
        need_parameters(dataset, "samples of units")
        return trained(dataset, data)
    except UserError as error:
        if needed:
            raise
        left_out.append(f"Samples of units are left out: {error}.")
        return []


def unit_parts(
    dataset: xr.Dataset,
    programs: Sequence[Lanes],
    order: Sequence[int],
    packer: Packer,
    size: float,
    left_out: list[str],
) -> Looked:
    """Samples and neighbours of the units of lanes, as long as there is room and time.

    Args:
        dataset: of a run.
        programs: its lanes, as `run_lanes` gives them.
        order: lanes by number, those that are given room first in front.
        packer: takes the arrays.
        size: bytes for all of them.
        left_out: is told in words what the page leaves out.
    """
    if not programs:
        return Looked({}, [])
    grid = grid_of(dataset)
    shape = [dataset.sizes[dim] for dim in (*cell_axes(dataset), "seed")]
    where: dict[int, tuple[Lanes, int]] = {}
    for lanes in programs:
        for index in np.flatnonzero(~lanes.diverged).tolist():
            where[int(np.ravel_multi_index(place_of(lanes, grid.labels, index), shape))] = lanes, index
    room, work, looked = Room(size), Room(MOST_WORK), Looked({}, [])
    seen: dict[int, _Samples] = {}
    wanted = [number for number in order if number in where]
    diverged = sum(int(lanes.diverged.sum()) for lanes in programs)
    reasons = {"diverged": diverged, "have no parameters kept": len(order) - len(wanted) - diverged}
    left_out.extend(
        f"Samples of units are left out for the {count} of {len(order)} lanes that {reason}."
        for reason, count in reasons.items()
        if count > 0
    )
    for number in wanted:
        lanes, index = where[number]
        units, d_in = int(lanes.lanes.settings.model.d_hidden), lane_of(lanes, index).d_in
        heldout = lanes.data.heldout[:, :d_in]  # Targets lie behind what is encoded.
        few = heldout[: max(1, MOST_CODES // units)]
        others = other_seeds(lanes, index)
        needed = len(few) * units * (2 * d_in + WORK_OF_A_CODE) + 2 * units**2 * d_in * (1 + len(others))
        if not work.take(needed):
            break
        samples = seen.setdefault(id(lanes.data), _Samples(lanes.data, len(seen)))
        part = _of_lane(lanes, index, few, others)
        if not room.take(sum(values.nbytes for values in part.values()) + samples.added(part)):
            break
        samples.add(part)
        about = {
            "samples": samples.number,
            "of": len(few),
            "whole": len(few) == len(heldout),
            "rule": rule_of(lanes.lanes.settings),
            "seeds": [*others],
        }
        looked.lanes[number] = about | {name: packer.put(values, exact=True) for name, values in part.items()}
        if len(few) < len(heldout) and len(looked.lanes) == 1:
            left_out.append(f"Samples of units are looked for among {len(few)} of {len(heldout)} held-out samples.")
    looked.samples.extend(samples.put(packer) for samples in seen.values())
    if len(looked.lanes) < len(wanted):
        left_out.append(
            f"For want of room or time, samples of units are in the page for {len(looked.lanes)} of {len(wanted)} "
            "lanes: every cell's best seed comes first."
        )
    return looked


def words_of_units() -> dict[str, Any]:
    """What a page says of units: quantiles, and above which density, in single precision, a unit is dense."""
    return {"quantiles": list(QUANTILES), "dense": float(np.float32(DENSE_ABOVE))}


def _of_lane(lanes: Lanes, index: int, samples: np.ndarray, others: Mapping[int, Any]) -> dict[str, np.ndarray]:
    """The arrays of a lane by name, each over its units first."""
    lane = lane_of(lanes, index)
    part: dict[str, np.ndarray] = dict(activity(lane, samples)._asdict())
    if ROWS in lane.params:
        rows = lane.params[ROWS]
        part["nearest"], part["nearest_cosines"] = nearest_rows(rows, count=NEAREST)
        if others:
            matches = [nearest_rows(rows, other.params[ROWS]) for other in others.values()]
            part["match"] = np.concatenate([numbers for numbers, _ in matches], axis=1)
            part["match_cosines"] = np.concatenate([cosines for _, cosines in matches], axis=1)
    return part


class _Samples:
    """The held-out samples of a data set that a page shows, by number."""

    def __init__(self, data: Data, number: int) -> None:
        self.number, self._data = number, data
        self._used = np.zeros(len(data.heldout), bool)

    def added(self, part: Mapping[str, np.ndarray]) -> int:
        """Bytes that a lane's samples add to those before."""
        data = self._data
        added = [number for number in self._of(part).tolist() if not self._used[number]]
        if data.image_shape:
            return len(added) * int(data.heldout.shape[1])
        return sum(len(self._name(number).encode()) for number in added) if data.heldout_names is not None else 0

    def add(self, part: Mapping[str, np.ndarray]) -> None:
        """Show a lane's samples too."""
        self._used[self._of(part)] = True

    def put(self, packer: Packer) -> dict[str, Any]:
        """Numbers of the samples, and what is shown of them."""
        numbers, data = np.flatnonzero(self._used), self._data
        shown: dict[str, Any] = {"numbers": packer.put(numbers)}
        if data.image_shape and len(numbers):
            low, high = np.quantile(data.heldout[numbers], [0.005, 0.995])
            pictures = packer.put(as_bytes(data.heldout[numbers], low, high))
            return shown | {"pictures": pictures, "shape": list(data.image_shape)}
        if data.heldout_names is not None:
            return shown | {"names": [self._name(number) for number in numbers.tolist()]}
        return shown

    def _name(self, number: int) -> str:
        name = printable((self._data.heldout_names or [])[number])
        return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"

    def _of(self, part: Mapping[str, np.ndarray]) -> np.ndarray:
        numbers = np.unique(np.concatenate([part["top"].ravel(), part["at_quantiles"].ravel()]))
        return numbers[numbers >= 0]

"""Two folders of shards, of samples and of their targets, whose rows belong together by their numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sae_jax.data.config import shown
from sae_jax.data.pairs import check_rows
from sae_jax.data.shards import HELDOUT, Shard, Shards, open_shards
from sae_jax.settings import UserError


class PairedShards(NamedTuple):
    """Two folders of shards whose rows belong together by their numbers."""

    inputs: Shards
    targets: Shards

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The files of both."""
        return self.inputs.shards + self.targets.shards

    @property
    def rows(self) -> int:
        """How many pairs there are."""
        return self.inputs.rows

    @property
    def width(self) -> int:
        """Numbers of a row [x | y]."""
        return self.inputs.width + self.targets.width

    def read(self, numbers: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        """Rows [x | y] of some numbers; order and errors as those of `Shards.read`."""
        return np.concatenate([self.inputs.read(numbers), self.targets.read(numbers)], axis=1)


class InOrder:
    """All rows of shards, or of pairs of them, of which slices are read when they are asked for."""

    def __init__(self, shards: Shards | PairedShards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return self._shards.rows

    def __getitem__(self, part: slice) -> Float[np.ndarray, "rows width"]:
        """The rows of a slice, as float32; errors as those of `Shards.read`."""
        return self._shards.read(np.arange(*part.indices(len(self))))


def open_pairs(folder: Path, targets: str) -> Shards | PairedShards:
    """The shards of a folder, beside those of its targets where it has some.

    Args:
        folder: of the samples.
        targets: the folder of the targets; "" is none.

    Raises:
        UserError: as `open_shards`; or the two have different numbers of rows.
    """
    shards = open_shards(folder)
    if not targets:
        return shards
    others = open_shards(Path(targets))
    check_rows(shards.rows, others.rows, shown(targets))
    return PairedShards(shards, others)


def held_apart(folder: Path, targets: str) -> bool:
    """Whether a folder of shards holds rows out itself, as that of its targets must then do.

    Raises:
        UserError: one of the two does, and the other does not.
    """
    apart = os.path.lexists(folder / HELDOUT)
    if targets and os.path.lexists(Path(targets) / HELDOUT) != apart:
        one, other = (shown(folder), shown(targets)) if apart else (shown(targets), shown(folder))
        raise UserError(
            f"samples and targets must both have a folder {HELDOUT}, or none: got one in {one} and none in {other}; "
            "write it for both"
        )
    return apart

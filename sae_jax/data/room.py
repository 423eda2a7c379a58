"""Whether samples fit in memory, before anybody looks at them: a view or a map of a file may be of any size."""

from __future__ import annotations

import numpy as np

from sae_jax.data.checks import check_fits
from sae_jax.data.config import DataConfig

SINGLE_BYTES = 4
# Of every row: its place in the order that splits them, and among those of its part.
PLACE_BYTES = 16


def held_out(number: int, config: DataConfig) -> int:
    """How many of so many samples are held out."""
    return max(1, round(config.heldout * number))


def check_room(samples: np.ndarray, config: DataConfig) -> None:
    """Refuse rows that a training has no memory for, rather than look through them for minutes first.

    Args:
        samples: [samples, features]; those of another rank are refused elsewhere.
        config: heldout and samples are read. How many samples are of its classes is not known yet.

    Raises:
        UserError: they do not fit.
    """
    if samples.ndim == 2 and not config.classes:
        held = held_out(len(samples), config)
        wanted = held + min(len(samples) - held, config.samples or len(samples))
        check_fits(wanted, SINGLE_BYTES * wanted * samples.shape[1] + PLACE_BYTES * len(samples))

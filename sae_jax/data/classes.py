"""The classes of samples that are trained on."""

from __future__ import annotations

import re

import numpy as np

from sae_jax.settings import UserError


def classes_named(text: str, train: np.ndarray | None, heldout: np.ndarray | None, name: str) -> list[int]:
    """The classes that `text` names.

    Args:
        text: class numbers and ranges of them, 0-4,7.
        train, heldout: class numbers of both, where the source has them.
        name: of the source, in messages.

    Raises:
        UserError: there are no labels, the text says no classes, or a class is not there.
    """
    if train is None or heldout is None:
        raise UserError(f"classes needs labelled samples: got {text!r}, and {name} has none; leave classes empty")
    available = np.intersect1d(train, heldout)
    if not len(available):
        raise UserError(f"classes needs a class with training and held-out samples: {name} has none; use more samples")
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not match:
            raise UserError(
                f"classes must be whole numbers and ranges of them, such as 0-4,7: got {text!r}; leave it empty for all"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or not {first, last} <= set(available.tolist()):
            raise UserError(
                f"classes must be among those of {name}, {available.min()} to {available.max()}, in rising order: "
                f"got {text!r}; leave it empty for all"
            )
        chosen += available[(available >= first) & (available <= last)].tolist()
    return chosen

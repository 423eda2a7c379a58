"""What lanes carried after their last step, in a file beside a run's results: they can be trained on from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.atomic import mend_unread, reason_of, write_file, writing
from sae_jax.storage.tensors import map_tensors, save_tensors

STATE_FILE = "state.safetensors"
CONTENT = {"title": "training states, PROGRAM.PATH over [cells of the program, seeds, ...]"}


def save_states(states: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write the states of a run's lanes.

    Raises:
        UserError: the folder cannot be written to.
    """
    with writing(folder):
        write_file(folder / STATE_FILE, lambda path: save_tensors(path, states, CONTENT))


def load_states(folder: Path) -> dict[str, np.ndarray]:
    """The states of a run's lanes, mapped; empty where they were not kept.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return {}
    try:
        return map_tensors(path)[0]
    except Exception as error:  # The library fails in as many ways as there are damaged files.
        fix = mend_unread(error, "train the run again, or remove the file to start from its parameters alone")
        raise UserError(f"a run's training states must be readable: {path}: got {reason_of(error)}; {fix}") from None

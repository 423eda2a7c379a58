"""Samples beside their targets: rows [x | y] of two sources, split again where they are trained on."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from sae_jax.data.checks import as_array, check_fits, checked
from sae_jax.data.config import DataConfig, shown
from sae_jax.data.normalise import Normalisation, fit
from sae_jax.settings import UserError

# Sources that may have targets, and what their targets are.
WITH_TARGETS = {"array": "file", "activations": "folder"}


class MissingTargets(UserError):
    """Targets that are not there; kind is the source, such as array, that they are beside."""

    def __init__(self, kind: str, path: str) -> None:
        noun = WITH_TARGETS[kind]
        super().__init__(
            f"targets of {kind} must be a {noun} that exists: got {path}; use one with a row for each sample"
        )
        self.elsewhere = "NEW.npy" if noun == "file" else "NEW"


def beside(samples: np.ndarray, targets: Any, name: str) -> tuple[np.ndarray, int]:
    """Rows [x | y] of arrays, and how many numbers y has.

    Args:
        samples: x, [samples, features].
        targets: y, [samples, outputs].
        name: what messages call the targets.

    Raises:
        UserError: the targets are no array of numbers, or of another number of rows.
    """
    targets = as_array(targets, name, "[samples, outputs]")
    if targets.ndim == 2:
        check_rows(len(samples), len(targets), name)
    targets = checked(targets, name, ("samples", "outputs"))
    kind = np.result_type(samples, targets)
    check_fits(len(samples), kind.itemsize * (samples.size + targets.size))
    return np.concatenate([samples, targets], axis=1), targets.shape[1]


def check_there(config: DataConfig) -> None:
    """Refuse targets that are not there, or are beside a source that has none.

    Raises:
        MissingTargets: they are not there.
        UserError: the source has none.
    """
    kind = config.dataset.partition(":")[0]
    if config.targets and kind not in WITH_TARGETS:
        raise UserError(
            f"targets must be beside array:FILE or activations:DIR: got {shown(config.targets)} beside "
            f"{config.dataset}; leave targets out"
        )
    if config.targets and not (os.path.isfile if kind == "array" else os.path.isdir)(config.targets):
        raise MissingTargets(kind, shown(config.targets))


def fitted(rows: np.ndarray, chosen: np.ndarray, rule: str, subtract_sample_mean: bool, outputs: int) -> Normalisation:
    """`normalise.fit` of rows, or of x and y apart where the last `outputs` numbers of a row are y.

    Raises:
        UserError: as `fit`; or each row's own mean is to be subtracted, which lies among x and y at once.
    """
    if not outputs:
        return fit(rows, chosen, rule, subtract_sample_mean)
    if subtract_sample_mean and rule in ("ufldl", "unit"):
        raise UserError("subtract_mean patch is of samples without targets: got it beside some; use global")
    width = rows.shape[1] - outputs
    inputs, targets = (fit(part, chosen, rule, False) for part in (rows[:, :width], rows[:, width:]))
    return inputs.beside(targets)


def check_rows(samples: int, targets: int, name: str) -> None:
    """Refuse targets that cannot belong to samples, row by row.

    Args:
        samples, targets: numbers of rows.
        name: what messages call the targets.

    Raises:
        UserError: there are more of the one than of the other.
    """
    if samples != targets:
        raise UserError(
            f"targets must have a row for each of the {samples} samples, in their order: got {targets} in {name}; "
            "write both in one pass over a model"
        )

"""Part of a run, by the values of its axes as a command line gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sae_jax.analysis.cells import cell_axes, is_numeric, short
from sae_jax.settings import UserError, unknown


def selected(dataset: xr.Dataset, words: Sequence[str]) -> xr.Dataset:
    """The part of a Dataset at some values of its axes.

    Args:
        dataset: of a sweep.
        words: such as rho=0.05, which leaves no axis rho, activation=relu, or seed=0,2 and rho=.05,.1, which do.

    Raises:
        UserError: a word is no axis with its values, or names an axis twice or a value that the run does not have.
    """
    names = set()
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise UserError(
                f"--select must be an axis with its values: got {word!r}; write it as in rho=0.05 or seed=0,1"
            )
        if name in names:
            raise UserError(f"--select must name an axis once: got {name} twice; write its values as in {name}=A,B")
        names.add(name)
        if name not in dataset.coords or not set(dataset[name].dims) <= {*cell_axes(dataset), "seed"}:
            raise unknown("axis", name, [*cell_axes(dataset), "seed"])
        places = sorted({_place(dataset[name], value) for value in _split(dataset[name], values)})
        if dataset[name].dims:
            # Of paired settings several lie along one dimension.
            [dim] = dataset[name].dims
            dataset = dataset.isel({dim: places if name == "seed" or len(places) > 1 else places[0]})
    return dataset


def _split(values: xr.DataArray, text: str) -> list[str]:
    """The words between commas; a value of the axis that holds commas itself is one of them."""
    known = {str(value) for value in np.atleast_1d(values.values).tolist() if "," in str(value)}
    words = text.split(",")
    for value in sorted(known, key=len, reverse=True):
        parts = value.split(",")
        for start in range(len(words) - len(parts), -1, -1):
            if words[start : start + len(parts)] == parts:
                words[start : start + len(parts)] = [value]
    return words


def _place(values: xr.DataArray, word: str) -> int:
    """The position of a value among those of an axis, or of the one value of a setting that is no axis."""
    every = np.atleast_1d(values.values)
    try:
        alike = np.isclose(every, float(word), rtol=1e-6, atol=0) if is_numeric(values) else np.zeros(len(every))
    except ValueError:
        alike = np.zeros(len(every))
    places = np.flatnonzero(alike if is_numeric(values) else [str(one).lower() == word.lower() for one in every])
    if not len(places):
        known = ", ".join(short(value) for value in every[:8]) + (", ..." if len(every) > 8 else "")
        raise UserError(f"--select: {values.name} must be a value of the run: got {word!r}; use one of {known}")
    return int(places[0])

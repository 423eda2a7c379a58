"""Whose parameters a run's files keep: those of all lanes, of every cell's best seed, or none."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sae_jax.settings import UserError
from sae_jax.storage.arrays import Opener
from sae_jax.storage.description import PARAMETERS_OF, PARAMETERS_SEED, names_of_kind, parameters_of
from sae_jax.sweeps.dataset import labels

SCORE = "eval_reconstruction"


def keep_parameters(dataset: xr.Dataset, keep: str, opened: Opener) -> xr.Dataset:
    """A finished sweep with the parameters that are to be kept.

    Args:
        dataset: with the parameters of all lanes, [axes, seed, ...].
        keep: all; best, those of the seed of the lowest eval_reconstruction of every cell, [axes, ...], beside
            parameters_seed, which says which one that is; or none.
        opened: where the arrays of the parameters that are kept are held.
    """
    names = names_of_kind(dataset, "parameter")
    if keep == "all":
        return dataset
    fewer = dataset.drop_vars(names).assign_attrs({PARAMETERS_OF: keep})
    if keep == "none":
        return fewer
    error = dataset[SCORE]
    # Of lanes that have diverged or measure as no number the first one, where there is none else.
    finite = error.where(np.isfinite(error) & (dataset["diverged_at"] < 0), np.inf)
    best = finite.argmin("seed")
    text = "seed whose parameters are kept: that of the lowest reconstruction error on held-out data"
    fewer[PARAMETERS_SEED] = (
        dataset["seed"][best].drop_vars("seed").assign_attrs(labels(text, "1") | {"kind": "status"})
    )
    for name in names:
        every = dataset[name]
        shape = tuple(size for dim, size in every.sizes.items() if dim != "seed")
        values = opened(f"best_{name}", shape, every.dtype)
        for cell in np.ndindex(best.shape):  # One at a time: all of them may be larger than memory.
            values[cell] = every.values[(*cell, int(best.values[cell]))]
        attributes = every.attrs | {"long_name": f"{every.attrs['long_name']}, of {PARAMETERS_SEED}"}
        fewer[name] = (tuple(dim for dim in every.dims if dim != "seed"), values, attributes)
    return fewer


def need_all(dataset: xr.Dataset, task: str) -> None:
    """Refuse a run that has not kept the parameters of all lanes.

    Raises:
        UserError: it has not.
    """
    if parameters_of(dataset) != "all":
        what = "those of the best seed of every cell alone" if parameters_of(dataset) == "best" else "none"
        raise UserError(
            f"{task} needs the parameters of every lane: got a run that kept {what} (--keep {parameters_of(dataset)}); "
            "train it again with --keep all"
        )

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


def need_parameters(dataset: xr.Dataset, use: str, of: str = "best") -> None:
    """Refuse a run that has not kept the parameters that a use needs.

    Args:
        dataset: of the run.
        use: what needs them, for the message.
        of: all lanes; or best, one lane of every cell at least.

    Raises:
        UserError: it has not.
    """
    kept = parameters_of(dataset)
    if kept == "none" or (kept == "best" and of == "all"):
        what = "those of the best seed of every cell alone" if kept == "best" else "none"
        whose = "every lane" if of == "all" else "a lane of every cell"
        fix = "all" if of == "all" else "best or all"
        raise UserError(
            f"{use} needs the parameters of {whose}: got a run that kept {what} (--keep {kept}); "
            f"train it again with --keep {fix}"
        )

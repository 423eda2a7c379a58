"""Whose parameters a run's files keep: all lanes', those of every cell's best seed, or none; which lanes have some."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sae_jax.settings import UserError
from sae_jax.storage.arrays import Opener
from sae_jax.storage.description import PARAMETERS_OF, PARAMETERS_SEED, names_of_kind, parameters_of
from sae_jax.sweeps.dataset import labels
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.reading import present

SCORE = "eval_reconstruction"
# Behind the label of a parameter of one seed of every cell.
OF_SEED = f", of {PARAMETERS_SEED}"


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
        attributes = every.attrs | {"long_name": f"{every.attrs['long_name']}{OF_SEED}"}
        fewer[name] = (tuple(dim for dim in every.dims if dim != "seed"), values, attributes)
    return fewer


def of_all_lanes(dataset: xr.Dataset) -> xr.Dataset:
    """A sweep that kept the parameters of every cell's best seed as one of all lanes: the other seeds' are NaN.

    Args:
        dataset: as `arranged`.
    """
    if parameters_of(dataset) != "best":
        return dataset
    best, whole = dataset[PARAMETERS_SEED] == dataset["seed"], {}
    for name in names_of_kind(dataset, "parameter"):
        attributes = dataset[name].attrs
        inner = [dim for dim in dataset[name].dims if dim not in best.dims]
        every = dataset[name].where(best).transpose(*dataset["diverged_at"].dims, *inner)
        whole[name] = every.assign_attrs(attributes | {"long_name": attributes["long_name"].removesuffix(OF_SEED)})
    attributes = {name: value for name, value in dataset.attrs.items() if name != PARAMETERS_OF}
    return dataset.drop_vars(PARAMETERS_SEED).assign(whole).drop_attrs(deep=False).assign_attrs(attributes)


def with_parameters(dataset: xr.Dataset) -> xr.DataArray | None:
    """Which lanes have parameters, over the lanes' dimensions and seed; None where all have.

    Those of lanes whose run kept none are NaN in a union with others. Where no lane that did not diverge has any, all
    are taken to have them.

    Args:
        dataset: as `arranged`.
    """
    if "diverged_at" not in dataset or "seed" not in dataset["diverged_at"].dims:
        return None
    present_lanes, dims, shape = present(dataset), dataset["diverged_at"].dims, dataset["diverged_at"].shape
    if parameters_of(dataset) == "best":
        best = (dataset[PARAMETERS_SEED] == dataset["seed"]).transpose(*dims)
        return best if present_lanes is None else best & present_lanes
    names = [name for name in names_of_kind(dataset, "parameter") if set(dims) <= set(dataset[name].dims)]
    if not names:
        return present_lanes
    # NaN begins every array of a lane that has none; of those that look so, all is read.
    arrays = [dataset[name].transpose(*dims, ...) for name in names]
    first = [one.isel({dim: 0 for dim in one.dims if dim not in dims}).values for one in arrays]
    lacks = np.array(np.isnan(first).all(axis=0))
    for lane in np.ndindex(shape):
        lacks[lane] = lacks[lane] and all(np.isnan(one.values[lane]).all() for one in arrays)
    lacks &= True if present_lanes is None else present_lanes.transpose(*dims).values
    if not (~lacks & (dataset["diverged_at"].values < 0)).any() or not lacks.any():
        return present_lanes
    has = xr.DataArray(~lacks, dataset["diverged_at"].coords, dims)
    return has if present_lanes is None else has & present_lanes


def lanes_left_out(dataset: xr.Dataset) -> list[str]:
    """A line about lanes without parameters, which what needs some leaves out; none where all have them.

    Args:
        dataset: as `arranged`.
    """
    lacking, total = _lacking(dataset)
    return [f"left out for want of parameters (--keep): {lacking} of {count(total, 'lane')}"] if lacking else []


def _lacking(dataset: xr.Dataset) -> tuple[int, int]:
    """(how many lanes have no parameters while others have some, how many lanes there are)."""
    has, present_lanes = with_parameters(dataset), present(dataset)
    total = (0 if has is None else has.size) if present_lanes is None else int(present_lanes.sum())
    return (0 if has is None else total - int(has.sum())), total


def need_parameters(dataset: xr.Dataset, use: str, of: str = "best") -> None:
    """Refuse a run that has not kept the parameters that a use needs.

    Args:
        dataset: of the run, as `arranged` where those of all lanes are needed.
        use: what needs them, for the message.
        of: all lanes; or best, one lane at least.

    Raises:
        UserError: it has not.
    """
    keep = parameters_of(dataset)
    if keep == "none" or (keep == "best" and of == "all"):
        what = "those of the best seed of every cell alone" if keep == "best" else "none"
        whose = "every lane" if of == "all" else "a lane of every cell"
        fix = "all" if of == "all" else "best or all"
        raise UserError(
            f"{use} needs the parameters of {whose}: got a run that kept {what} (--keep {keep}); "
            f"train it again with --keep {fix}"
        )
    lacking, total = _lacking(dataset) if of == "all" else (0, 0)
    if lacking:
        raise UserError(
            f"{use} needs the parameters of every lane: got {lacking} of {count(total, 'lane')} without (--keep); "
            "train those again with --keep all"
        )

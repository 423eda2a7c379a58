"""A sweep made larger: the lanes that it has are taken, the others are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.data import Data, DataConfig
from sae_jax.models import Model
from sae_jax.settings import settings_of
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps import processes
from sae_jax.sweeps.devices import reserve_cpu_devices
from sae_jax.sweeps.observers import Observer, Observers
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.reading import settings_beside
from sae_jax.sweeps.split import earlier_sweep
from sae_jax.sweeps.sweep import train


def extend(
    dataset: xr.Dataset,
    data: Data | np.ndarray | None = None,
    model: Model | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    zip: Sequence[str] | None = None,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> xr.Dataset:
    """Train the lanes that a larger grid has and a sweep has not; the others are taken as they are.

    Args:
        dataset: of a sweep.
        data: the samples, where the sweep was given samples and not a DataConfig; None loads them as its settings say.
        model: the record, where the model is none that sae_jax knows by name.
        seeds, zip, observers: as in `sweep`; None is as it was.
        settings: those that change, with all of their values; and how lanes are laid out (devices, ...), as in `sweep`.

    Returns:
        What `sweep` returns of the whole grid, to 1e-5 relative; to the bit where the lanes are packed alike.

    Raises:
        UserError: the larger grid lacks a lane of the sweep, the samples are others, or as `sweep`.
    """
    of_engine = {name: settings.pop(name) for name in settings_of(Engine) if name in settings}
    engine = Engine(**of_engine)
    reserve_cpu_devices(engine.devices)
    observer = Observers(observers if processes.leads() else ())
    earlier = earlier_sweep(dataset, "the sweep", model)
    larger = settings_beside(earlier.grid, settings, zip)
    larger.pop("model", None)  # Of several models it is an axis by itself.
    if data is not None:
        larger = {name: value for name, value in larger.items() if name not in settings_of(DataConfig)}
    study = prepare(
        DataConfig() if data is None else data,
        earlier.grid.model,
        seeds=earlier.grid.seeds if seeds is None else seeds,
        engine=engine,
        observer=observer,
        earlier=earlier,
        **larger,
    )
    return train(study, observer, in_memory())

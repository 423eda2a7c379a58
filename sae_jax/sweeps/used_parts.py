"""What a sweep uses of plug-ins, and what a finished one needs of them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.settings import SweepWarning
from sae_jax.storage import plugin_list
from sae_jax.sweeps.grid import Grid


def used_by(grid: Grid, observers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What a run of a grid says of the plug-ins that it uses parts of, as `plugin_list.records`.

    Args:
        grid: its models and sources are read.
        observers: names of those that watch.
    """
    used: dict[str, list[str]] = {"observer": [*observers]}
    for model in grid.model.choices or (grid.model,):
        for kind, names in model.Settings.PARTS.items():
            used.setdefault(kind, []).extend(names)
    sources = grid.axes.get("dataset", (grid.data.dataset,))
    used["source"] = [source.partition(":")[0] for source in sources]
    return plugin_list.records({kind: list(dict.fromkeys(names)) for kind, names in used.items()})


def check_plugins(dataset: xr.Dataset, kinds: Sequence[str], model_given: bool = False) -> None:
    """Refuse a Dataset that needs parts of plug-ins which are not loaded.

    A term whose weight is 0 throughout is not needed: `unneeded` names its settings.

    Args:
        dataset: of a sweep.
        kinds: those of the parts that are needed.
        model_given: whether somebody brings the record of the model, with its terms.

    Raises:
        UserError: one is not loaded.

    Warns:
        SweepWarning: a plug-in has changed since.
    """
    plugins = plugin_list.recorded(dataset)
    needed = [kind for kind in kinds if not (model_given and kind in ("model", "term"))]
    for change in plugin_list.check_loaded(plugins, needed, _idle_terms(dataset, plugins)):
        warnings.warn(
            f"results may be others with another version of a plug-in: got {change}", SweepWarning, stacklevel=3
        )


def warn_of_measures(dataset: xr.Dataset, grid: Grid, name: str) -> None:
    """Say which measures of plug-ins a sweep that is made larger has of some lanes alone, or loses.

    Args:
        dataset: of the sweep that is extended, of whose lanes nothing is measured again.
        grid: what is wanted.
        name: the sweep, in messages.

    Warns:
        SweepWarning: it lacks one that is loaded, or has one that is not.
    """
    before, now = (
        {measure: one for one in plugins for measure in one["parts"].get("measure", ())}
        for plugins in (plugin_list.recorded(dataset), used_by(grid))
    )
    if added := [f"eval_{measure}" for measure in now if measure not in before]:
        warnings.warn(
            f"lanes that are taken are not measured again: got {name} without {', '.join(added)}, NaN there; "
            "begin a new sweep to have all",
            SweepWarning,
            stacklevel=4,
        )
    if lost := [measure for measure in before if measure not in now]:
        flags = plugin_list.flags([before[lost[0]]])
        warnings.warn(
            f"measures of plug-ins that are not loaded are left out: got {name} with eval_{', eval_'.join(lost)}; "
            f"{f'add{flags}' if flags else 'install their package'} to keep them",
            SweepWarning,
            stacklevel=4,
        )


def unneeded(dataset: xr.Dataset, known: Collection[str]) -> set[str]:
    """Settings of a Dataset that are of no effect there, and of no loaded plug-in: terms that are off, whole.

    Args:
        dataset: of a sweep.
        known: settings that are declared here.
    """
    plugins = plugin_list.recorded(dataset)
    term_settings = {
        name: one.get("settings", {}).get(name, []) for one in plugins for name in one["parts"].get("term", ())
    }
    idle = _idle_terms(dataset, plugins)
    return {setting for name in idle for setting in (name, *term_settings.get(name, ())) if setting not in known}


def _idle_terms(dataset: xr.Dataset, plugins: Sequence[Mapping[str, Any]]) -> list[str]:
    terms = [name for one in plugins for name in one["parts"].get("term", ())]
    return [name for name in terms if name not in dataset.coords or not np.any(dataset.coords[name].values)]

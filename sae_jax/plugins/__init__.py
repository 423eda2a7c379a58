"""Parts of your own, from a file of yours or an installed package: models, terms, measures, sources, tasks, observers.

A plug-in is Python with one dict, PARTS: name -> declaration. See docs/plugins.md.

parts      what it may declare, beside Model, Measure and Observer
loading    files and entry points; checks: of what they declare
registry   where the declarations go: beside those of the package
"""

from sae_jax.models.base import Measure, Model
from sae_jax.plugins.loading import GROUP, load, load_installed
from sae_jax.plugins.parts import AddedTerm, Source, Task
from sae_jax.plugins.registry import unload
from sae_jax.storage.plugin_list import LOADED, Plugin
from sae_jax.sweeps.observers import Observer

__all__ = [
    "GROUP",
    "LOADED",
    "AddedTerm",
    "Measure",
    "Model",
    "Observer",
    "Plugin",
    "Source",
    "Task",
    "load",
    "load_installed",
    "unload",
]

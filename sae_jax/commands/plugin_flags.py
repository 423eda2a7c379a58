"""`--plugin FILE.py`: parts of one's own, loaded before a command line is read any further."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from sae_jax.commands.cluster import Launch, devices_named, words_after
from sae_jax.commands.run_config import RunConfig
from sae_jax.data.config import DataConfig
from sae_jax.settings import SweepWarning, UserError, flag, settings_of
from sae_jax.storage.plugin_list import GROUP, LOADED, Plugin
from sae_jax.sweeps.devices import reserve_cpu_devices
from sae_jax.sweeps.observers import OBSERVERS, Observer

PLUGIN, HELP = "plugin", "files of Python with parts of your own, such as my_parts.py; see docs/plugins.md"
# Flags of trainings, and of evaluate, that are settings of nothing.
OF_TRAININGS = ("seed", "seeds", "zip", "preset", "model", PLUGIN, "help")
OF_TASKS = ("run", "task", "dataset", "devices", PLUGIN, "help")


def load_plugins(argv: Sequence[str]) -> None:
    """Load the plug-ins of installed packages, and those that a command line names; nothing else is ever loaded.

    Raises:
        UserError: one that is named is missing or broken, or has a name that is taken.
    """
    files, installed = words_after(argv, flag(PLUGIN)), metadata.entry_points(group=GROUP)
    if files is not None and not any(files):
        raise UserError(f"{flag(PLUGIN)} needs a file: got none; as in {flag(PLUGIN)} my_parts.py")
    if folder := next(filter(os.path.isdir, (files or [])[1:]), None):
        raise UserError(
            f"{flag(PLUGIN)} takes every word up to the next flag: got {folder}, a folder; name a run before the flag"
        )
    _show_in_a_line()
    if not files and not installed:
        return
    from sae_jax.plugins import load_installed, unload  # Whoever has no plug-ins need not wait for it.
    from sae_jax.plugins.loading import load_files

    reserve_cpu_devices(devices_named(argv))  # They may compute as they are read.
    if installed:
        for plugin in load_installed():
            if clash := _clash(plugin):
                unload(plugin)
                warnings.warn(f"{clash}; the plug-in of the installed package is left out", SweepWarning, stacklevel=2)
    before = set(LOADED)
    try:
        for plugin in load_files(files or ()):
            if clash := _clash(plugin):
                raise UserError(clash)
    except UserError:
        for path in set(LOADED) - before:
            unload(LOADED[path])
        raise


def plugin_failure(error: BaseException) -> str:
    """The line about an exception that a plug-in's code has raised; "" where it has no part in it."""
    if not LOADED or not isinstance(error, Exception | SystemExit):
        return ""
    from sae_jax.plugins.loading import where

    line = next(filter(None, (where(error, path) for path in LOADED)), None)
    return f"a plug-in must not raise an exception: {line}" if line else ""


def made_observers(words: Iterable[str]) -> list[Observer]:
    """The observers that a command line names.

    Raises:
        UserError: there is none of a name, or it refuses its settings.
    """
    made = []
    for word in filter(None, words):
        name, _, argument = word.partition(":")
        if name not in OBSERVERS:
            known = f"known: {', '.join(OBSERVERS)}" if OBSERVERS else f"add {flag(PLUGIN)} FILE.py that declares it"
            raise UserError(f"unknown observer {name}: {known}")
        made.append(OBSERVERS[name](argument))
    return made


def names_of(words: Iterable[str]) -> list[str]:
    """The names of observers, without their settings."""
    return [word.partition(":")[0] for word in words if word]


def plugin_words() -> list[str]:
    """The names of the settings that loaded plug-ins declare, and of the flags that take their names."""
    from sae_jax.models import ARCHITECTURES

    every = [name for plugin in LOADED.values() for name, _ in _settings_of(plugin)]
    known = {name for model in ARCHITECTURES for name in settings_of(model.Settings)}
    observers = ["observers"] if OBSERVERS else []
    return [*dict.fromkeys(name for name in every if name not in known), *observers, PLUGIN] if LOADED else []


def data_fields() -> dict[str, dataclasses.Field]:
    """The settings of the data for the help, which names the sources of plug-ins and their settings."""
    fields = settings_of(DataConfig)
    sources = {name: one for plugin in LOADED.values() for name, one in plugin.declared["source"].items()}
    if not sources:
        return fields
    field, words = fields["dataset"], []
    for name, source in sources.items():
        of_source = settings_of(source.Settings) if source.Settings else {}
        texts = [
            f"{one} ({declared.metadata['help']}; {declared.metadata['range']}, default {declared.default})"
            for one, declared in of_source.items()
        ]
        words.append(f"{name}, {source.help}{', with ' + ', '.join(texts) if texts else ''}")
    text = f"{field.metadata['help']}; of plug-ins: {'; '.join(words)}"
    shown: Any = dataclasses.field(default=field.default, metadata={**field.metadata, "help": text})
    shown.name, shown.type = field.name, field.type
    return {**fields, "dataset": shown}


def _settings_of(plugin: Plugin) -> list[tuple[str, str]]:
    """The settings of a plug-in's models and terms, each with whose it is."""
    models = [(setting, f"model {name}") for name, one in plugin.declared["model"].items() for setting in _of(one)]
    terms = plugin.declared["term"].items()
    return [*models, *((setting, f"term {name}") for name, one in terms for setting in (name, *one.settings))]


def _of(part: Any) -> Mapping[str, Any]:
    return settings_of(part.Settings)


def _clash(plugin: Plugin) -> str:
    """What is wrong with settings of a plug-in that have the name of another flag of the same command; or ""."""
    from sae_jax.analysis.options import TaskConfig

    training = dict.fromkeys([*OF_TRAININGS, *settings_of(RunConfig), *settings_of(Launch)], "every training")
    tasks = dict.fromkeys([*settings_of(TaskConfig), *OF_TASKS], "evaluate")
    settings = [(setting, whose, training) for setting, whose in _settings_of(plugin)]
    for one in LOADED.values():
        for name, task in one.declared["task"].items():
            for setting in _of(task) if task.Settings is not TaskConfig else ():
                if one is plugin:
                    settings.append((setting, f"task {name}", {**tasks}))
                tasks[setting] = f"task {name} of {one.path}"
    for setting, whose, known in settings:
        if setting in known:
            return (
                f"settings must have names of their own: got {setting} of {whose} of {plugin.name}, also a flag of "
                f"{known[setting]}; rename it"
            )
    return ""


def _show_in_a_line() -> None:
    """Show what a sweep's results should be read with in one line, as everything that commands say."""
    if getattr(warnings.showwarning, "func", None) is not _show:
        warnings.simplefilter("always", SweepWarning)  # Also for who has warnings raised.
        warnings.showwarning = functools.partial(_show, warnings.showwarning, set())


def _show(show: Callable[..., None], shown: set[str], message: Warning | str, *rest: Any, **named: Any) -> None:
    if isinstance(message, SweepWarning) and str(message) not in shown:
        shown.add(str(message))
        print(f"warning: {message}", file=sys.stderr)
    elif not isinstance(message, SweepWarning):
        show(message, *rest, **named)

"""`--resume RUN`: the words of the command that began a run, from its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_jax.commands.cluster import Launch
from sae_jax.commands.environment import call
from sae_jax.commands.flags import without
from sae_jax.commands.plugin_flags import PLUGIN
from sae_jax.commands.run_config import RunConfig
from sae_jax.settings import settings_of
from sae_jax.storage import plugin_list
from sae_jax.storage import record as records
from sae_jax.storage import run_folder as runs
from sae_jax.storage.atomic import check_reachable

# Flags that a command that resumes a run may change. What a run names is not loaded unless this command names it too.
OF_THE_PROCESS = ("resume", "name", "runs", PLUGIN, *settings_of(Launch))


def recorded_words(command: str, run: RunConfig) -> list[str]:
    """The words of the command that began the run to resume.

    Raises:
        UserError: there is no such run, or it needs a plug-in that is not loaded.
    """
    words, record = begun_words(command, run)
    plugin_list.check_loaded(plugin_list.valid(record.get("plugins")), plugin_list.KINDS)
    return words


def begun_words(command: str, run: RunConfig) -> tuple[list[str], dict[str, Any]]:
    """The words of the command that began a run, and its record.

    Raises:
        UserError: there is no such run.
    """
    folder = resumed_folder(run)
    check_reachable(folder / records.CONFIG_FILE, "a run to resume")
    record = runs.unfinished_record(folder)
    return records.arguments_of(record, call(command)), record


def resumed_words(argv: Sequence[str], recorded: Sequence[str]) -> list[str]:
    """The words of the command that began a run, then those of the one that resumes it."""
    return [*without(recorded, argv, OF_THE_PROCESS), *argv]


def resumed_folder(run: RunConfig) -> Path:
    """The folder that `--resume` names, by its path or by its name in the folder of all runs."""
    path, named = Path(run.resume), Path(run.runs) / run.resume
    # What else has that name here is not meant where a run has it.
    held = (one for holds in (runs.is_unfinished, runs.is_finished) for one in (path, named) if holds(one))
    folder = next(held, path if os.path.exists(path) or not os.path.isdir(named) else named)
    # A link at the name of a new run is refused.
    return Path(os.path.realpath(folder)) if os.path.islink(folder) else folder


def named_folder(run: RunConfig) -> Path | None:
    """The run's folder, where the command line names it."""
    return resumed_folder(run) if run.resume else Path(run.runs) / run.name if run.name else None

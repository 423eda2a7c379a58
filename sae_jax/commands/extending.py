"""`--extend RUN` and `--start-from RUN`: a finished run as the beginning of a larger one, or of a longer one.

A dictionary of others, in a SAELens folder, is started from like a run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_jax.commands.cluster import words_after
from sae_jax.commands.flags import Parsed, named_flags
from sae_jax.commands.run_config import RunConfig
from sae_jax.models import model_of
from sae_jax.models.presets import preset
from sae_jax.settings import UserError, flag
from sae_jax.storage import record as records
from sae_jax.storage import results
from sae_jax.storage import run_folder as runs
from sae_jax.storage.states import STATE_FILE
from sae_jax.sweeps import dictionaries
from sae_jax.sweeps.grid import Grid
from sae_jax.sweeps.origin import check_moved, origin_at
from sae_jax.sweeps.reading import settings_beside
from sae_jax.sweeps.split import earlier_sweep
from sae_jax.sweeps.study import Earlier


def earlier_of(run: RunConfig) -> Earlier | None:
    """The finished run that a command extends; None where it extends none.

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    if not run.extend:
        return None
    folder = _folder(run.extend, run)
    sizes = {cells_per_block for cells_per_block, _ in _record(folder).get("packing", [])}
    return earlier_sweep(results.load(folder), str(folder))._replace(
        cells_per_block=min(sizes) if len(sizes) == 1 else 0
    )


def origin_of_run(run: RunConfig) -> Earlier | None:
    """The finished run, or the dictionary, whose lanes a command trains on; None where it starts at random.

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    return origin_at(_folder(run.start_from, run).absolute()) if run.start_from else None


def model_before(run: RunConfig) -> str:
    """The model of the finished run, or of the dictionary, that a command goes on from; empty where it begins anew.

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    before = earlier_of(run) or origin_of_run(run)
    return before.grid.model.name if before else ""


def completed(parsed: Parsed, words: Sequence[str], before: Grid) -> Parsed:
    """What a command line asks for, with the settings and seeds of the run that it goes on from where it names none.

    Those of a preset are named with it.

    Raises:
        UserError: other samples are named than those of a run to start from, whose targets belong to its own; or a
            preset of another model.
    """
    run, settings, seeds = parsed
    presets = [one for one in words_after(words, flag("preset")) or () if one]
    named = [*named_flags(words), *(name for one in presets for name in preset(one)[1])]
    given = {name: value for name, value in settings.items() if name in named and name not in ("zip", "model")}
    model = settings["model"] if "model" in named or presets else before.model.name
    if presets and model_of(model).name != before.model.name:
        raise UserError(
            f"a preset must be of the model of {run.extend or run.start_from}, {before.model.name}: got "
            f"{' '.join(presets)}, of {model_of(model).name}; leave it out"
        )
    if "seeds" not in named and "seed" not in named:
        seeds = before.seeds
    if model_of(model).name != before.model.name:  # Which is refused, and has not the settings of the other.
        return run, {"model": model} | given, seeds
    if run.start_from:
        check_moved(before, run.start_from, given)
    every = settings_beside(before, given, settings.get("zip"))
    return run, {"model": model} | every, seeds


def check_single(settings: Mapping[str, Any], seeds: int | Sequence[int]) -> None:
    """Refuse several lanes where one is trained.

    Raises:
        UserError: there are several.
    """
    several = {name: values for name, values in settings.items() if isinstance(values, tuple) and len(values) > 1}
    several.pop("zip", None)
    if not isinstance(seeds, int) and len(seeds) > 1:
        several["seed"] = tuple(seeds)
    for name, values in several.items():
        raise UserError(
            f"{flag(name)} must name one of the lanes to start from: got none of {', '.join(map(str, values))}; "
            "name one, or use sweep"
        )


def record_of(run: RunConfig) -> dict[str, str | None]:
    """What a run's record says of the lanes that it goes on from: by what they are known again, and where they lay."""
    before = run.extend or run.start_from
    if not before:
        return {"extends": None, "started_from": None}
    folder = _folder(before, run)
    started_from = os.path.abspath(folder) if run.start_from else None
    if run.start_from and dictionaries.is_dictionary(folder):
        return {"extends": dictionaries.digest(folder), "started_from": started_from}
    file = folder / (STATE_FILE if run.start_from and (folder / STATE_FILE).is_file() else results.PARAMS_FILE)
    with file.open("rb") as stream:
        return {"extends": hashlib.file_digest(stream, "sha256").hexdigest()[:12], "started_from": started_from}


def version_lines(run: RunConfig, content: Mapping[str, Any]) -> list[str]:
    """A warning for every version that has changed since the run was trained that a command extends."""
    before = _record(_folder(run.extend, run)) if run.extend else {}
    changes = records.changed_versions(before, content) if before else []
    if before and before["devices"] != content["devices"]:
        changes.append(f"devices {before['devices']} -> {content['devices']}")
    return [
        f"warning: lanes are the same to the bit only with the same versions and devices: got {change}"
        for change in changes
    ]


def _folder(name: str, run: RunConfig) -> Path:
    """The folder of a finished run, by its path or by its name in the folder of all runs."""
    path, named = Path(name), Path(run.runs) / name
    folder = named if os.path.isdir(named) and not os.path.isdir(path) else path
    runs.check_finished(folder)
    return folder


def _record(folder: Path) -> dict[str, Any]:
    """What config.json says of a run; empty where there is none that can be read."""
    try:
        return records.read_record(folder / records.CONFIG_FILE)
    except UserError:
        return {}

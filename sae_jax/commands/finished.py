"""What the commands that read a finished run share: the word that names it, and reading it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_jax.commands.flags import option
from sae_jax.settings import TEXT, UserError, flag, setting

if TYPE_CHECKING:
    import xarray as xr

RUN = option("run", ("",), "folder of a finished run, or its name in runs", "RUN", False, positional=True)
MEASURE = option("measure", ("",), "measures to show, such as eval_l0; empty is the usual ones", "NAME", True)
SELECT = option("select", ("",), "values of axes to keep, such as rho=0.05 seed=0,1; empty is all", "AXIS=VALUE", True)
OUT = option("out", ("",), "where to write; empty is as said above", "PATH", False)


def run_folder(words: Mapping[str, Sequence[str]], command: str) -> Path:
    """The run that a command line names.

    Raises:
        UserError: it names none, or several, or an unfinished one.
    """
    if len(words["run"]) != 1 or not words["run"][0]:
        given = " ".join(words["run"]) or "none"
        raise UserError(f"{command} needs the folder of one finished run, before its flags: got {given}; see runs/")
    from sae_jax.storage.run_list import folder_of  # Help need not wait for it.

    return folder_of(words["run"][0])


def load_run(folder: Path) -> xr.Dataset:
    """The Dataset of a finished run; errors as those of `sae_jax.storage.results.load`."""
    from sae_jax.storage import results  # Help need not wait for it.

    return results.load(folder)


@dataclasses.dataclass(frozen=True)
class Moved:
    """Where a run's samples lie now."""

    dataset: str = setting(
        "", TEXT, "where the file of the run's samples lies now, such as array:FILE.npy; empty is where it was"
    )
    targets: str = setting(
        "", TEXT, "where the targets of the run's samples lie now, a file or a folder; empty is where they were"
    )


def moved(dataset: xr.Dataset, where: Moved) -> xr.Dataset:
    """A run's Dataset whose samples lie elsewhere now; they are checked when they are read.

    Args:
        dataset: of the run.
        where: what of them was moved.

    Raises:
        UserError: the run was trained on several data sets, or without the targets that are named.
    """
    given = {name: place for name, place in dataclasses.asdict(where).items() if place}
    if not given:
        return dataset
    for name, place in given.items():
        if name in dataset.dims or (name in dataset.coords and dataset[name].dims):
            raise UserError(f"{flag(name)} says where one file lies: got {place} for a run of several; put them back")
    if where.targets and not ("targets" in dataset.coords and dataset["targets"].item()):
        raise UserError(
            f"--targets says where a run's targets lie: got {where.targets} for a run without; leave it out"
        )
    from sae_jax.data.config import DataConfig

    config = DataConfig(**given)
    return dataset.assign_coords({name: getattr(config, name) for name in given})


@contextlib.contextmanager
def moved_files_named(where: Moved) -> Iterator[None]:
    """Add to the error for a missing file of a run's samples how to say where it lies now.

    Args:
        where: what was given for that.
    """
    from sae_jax.data.files import MissingFile
    from sae_jax.data.pairs import MissingTargets

    try:
        yield
    except (MissingFile, MissingTargets) as error:
        name = "dataset" if isinstance(error, MissingFile) else "targets"
        if getattr(where, name):
            raise
        raise UserError(f"{error} (where it was moved, add {flag(name)} {error.elsewhere})") from None


def several(words: Mapping[str, Sequence[str]], name: str) -> tuple[str, ...]:
    """The words given to an option that takes any; none where it was left out.

    Raises:
        UserError: it was given without a value.
    """
    if not words[name]:
        raise UserError(f"{flag(name)} needs a value: got none; see --help")
    return tuple(word for word in words[name] if word)


def one(words: Mapping[str, Sequence[str]], name: str) -> str:
    """The word given to an option that takes one; empty where it was left out.

    Raises:
        UserError: it was given without a value, or with several.
    """
    if len(words[name]) != 1:
        given = (
            f"got {len(words[name])} ({' '.join(words[name])}); leave one" if words[name] else "got none; see --help"
        )
        raise UserError(f"{flag(name)} takes one value: {given}")
    return words[name][0]

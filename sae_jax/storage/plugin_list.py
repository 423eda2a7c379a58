"""The plug-ins that this process has loaded, and those that a run says it was made with.

A run names them, in the attribute plugins of its Dataset and in config.json; nothing is ever loaded because a run says
so. What it needs and this process has not loaded is asked for in words.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_jax.settings import UserError

if TYPE_CHECKING:
    import xarray as xr

ATTRIBUTE = "plugins"
# The entry points by which installed packages name modules that are plug-ins.
GROUP = "sae_jax.plugins"
# What a plug-in may declare, as messages and records call it.
KINDS = ("model", "term", "measure", "source", "task", "observer")
DIGITS = 12
# What stands before the name of a plug-in among the versions of a run.
IN_VERSIONS = "plug-in "
Names = Mapping[str, Sequence[str]]


class Plugin(NamedTuple):
    """A file or an installed package that declares parts.

    Attributes:
        name: the file's name, or that of the distribution.
        path: where the file lies; of a package the file or the folder of its module.
        sha256: digest of the file; empty for a package.
        version: of the distribution; empty for a file.
        declared: by kind, then by name, what it declares; a kind is one of KINDS.
    """

    name: str
    path: str
    sha256: str
    version: str
    declared: Mapping[str, Mapping[str, Any]]

    @property
    def identity(self) -> str:
        """By what it is told from an earlier or a later one of the same name."""
        return f"sha256 {self.sha256[:DIGITS]}" if self.sha256 else self.version


# By path.
LOADED: dict[str, Plugin] = {}


def provider(kind: str, name: str) -> Plugin | None:
    """The loaded plug-in that declares a part; None where none does."""
    return next((one for one in LOADED.values() if name in one.declared.get(kind, {})), None)


def records(used: Names) -> list[dict[str, Any]]:
    """What a run says of the loaded plug-ins that it uses parts of, as values of JSON.

    Args:
        used: names by kind; those that no plug-in declares are left out.

    Returns:
        Of each its file and digest or its package, its version, parts by kind, and the further settings of its terms.
    """
    made = []
    for one in LOADED.values():
        parts = {kind: [name for name in used.get(kind, ()) if name in one.declared.get(kind, {})] for kind in KINDS}
        parts = {kind: names for kind, names in parts.items() if names}
        source = {"file": one.path, "sha256": one.sha256} if one.sha256 else {"package": one.name}
        terms = {name: [*one.declared["term"][name].settings] for name in parts.get("term", ())}
        if parts:
            made.append({**source, "version": one.version, "parts": parts, "settings": terms})
    return made


def versions(plugins: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the versions of a run say of its plug-ins, as `records` made them: name -> identities of that name."""
    named: dict[str, list[str]] = {}
    for one in plugins:
        named.setdefault(f"{IN_VERSIONS}{_name(one)}", []).append(_identity(one))
    return {name: " and ".join(identities) for name, identities in named.items()}


def changes(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[str]:
    """Plug-ins of whose parts a run had another version before, or none, or has none now: NAME A -> B.

    Parts are compared, not files: these may have moved, and several may have one name.

    Args:
        before, now: as `records` made them.
    """
    old, new = _by_part(before), _by_part(now)
    lines = []
    for part in dict.fromkeys([*new, *old]):
        (name, identity), (name_now, identity_now) = old.get(part, ("", None)), new.get(part, ("", None))
        if identity != identity_now:
            lines.append(f"{IN_VERSIONS}{name or name_now} {identity} -> {identity_now}")
    return list(dict.fromkeys(lines))


def _by_part(plugins: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {
        (kind, name): (_name(one), _identity(one))
        for one in plugins
        for kind, names in one["parts"].items()
        for name in names
    }


def flags(plugins: Iterable[Mapping[str, Any]]) -> str:
    """The flag that loads the files of a run's plug-ins, with a space before; empty where there are none."""
    files = [shlex.quote(_shown(one)) for one in plugins if "file" in one]
    return " ".join([" --plugin", *files]) if files else ""


def recorded(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The plug-ins that a Dataset says it was made with."""
    return valid(dataset.attrs.get(ATTRIBUTE, "[]"))


def valid(plugins: Any) -> list[dict[str, Any]]:
    """Records of plug-ins out of a file that may hold anything, as JSON or read from it, without what is none."""
    try:
        every = json.loads(plugins) if isinstance(plugins, str) else plugins
    except (ValueError, RecursionError):
        return []
    return [one for one in every if _is_record(one)] if isinstance(every, list) else []


def joined(*several: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records of plug-ins of several runs, each part once: the first record of it stands."""
    known: set[tuple[str, str]] = set()
    every = []
    for one in (one for plugins in several for one in plugins):
        parts = {kind: [name for name in names if (kind, name) not in known] for kind, names in one["parts"].items()}
        parts = {kind: names for kind, names in parts.items() if names}
        known |= {(kind, name) for kind, names in parts.items() for name in names}
        if parts:
            every.append({**one, "parts": parts})
    return every


def check_loaded(plugins: Iterable[Mapping[str, Any]], kinds: Sequence[str], unused: Sequence[str] = ()) -> list[str]:
    """Refuse a run that needs parts of plug-ins which this process has not loaded.

    Args:
        plugins: as `records` made them.
        kinds: those of the parts that are needed.
        unused: names that are not, since they have no effect in the run.

    Returns:
        Plug-ins that have changed since: NAME A -> B.

    Raises:
        UserError: one is not loaded.
    """
    changed = []
    for one in plugins:
        parts = [(kind, name) for kind in kinds for name in one["parts"].get(kind, ())]
        for kind, name in (part for part in parts if part[1] not in unused):
            now = provider(kind, name)
            if now is None:
                raise missing(one, kind, name)
            if now.identity != _identity(one):
                changed.append(f"{IN_VERSIONS}{_name(one)} {_identity(one)} -> {now.identity}")
    return list(dict.fromkeys(changed))


def missing(plugin: Mapping[str, Any], kind: str, name: str) -> UserError:
    """The error for a part of a run whose plug-in is not loaded."""
    if "file" in plugin:
        shown = _shown(plugin)
        return UserError(
            f"the run's {kind} {name} comes from a plug-in, which must be loaded: got none that declares it; add "
            f"--plugin {shlex.quote(shown)}, in Python sae_jax.plugins.load({shown!r})"
        )
    return UserError(
        f"the run's {kind} {name} comes from the package {plugin['package']} {plugin['version']}, which must be "
        "installed: got none that declares it; install it, in Python call sae_jax.plugins.load_installed() too"
    )


def _is_record(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("parts"), dict):
        return False
    source = ("file", "sha256") if "file" in one else ("package",)
    named = all(isinstance(one.get(name), str) for name in (*source, "version"))
    every = [one["parts"], one.get("settings", {})]
    if not named or not all(isinstance(names, dict) for names in every):
        return False
    lists = [names for by_kind in every for names in by_kind.values()]
    return all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)


def _name(plugin: Mapping[str, Any]) -> str:
    return Path(plugin["file"]).name if "file" in plugin else str(plugin["package"])


def _identity(plugin: Mapping[str, Any]) -> str:
    return f"sha256 {plugin['sha256'][:DIGITS]}" if "file" in plugin else str(plugin["version"])


def _shown(plugin: Mapping[str, Any]) -> str:
    """A file as people name it: below the folder that they are in without what leads there."""
    path, here = Path(plugin["file"]), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

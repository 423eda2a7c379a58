"""What a saved report is of, and whether that is what would be run now.

A report is of the same tree where three digests or values agree: that of the source files of sae_jax but for the rooms
that compute nothing (among the versions), that of the files of experiments/ which the reproduction imports, directly or
through others, and the versions of Python and of the packages. The commit, the machine and the time taken are said, and
decide nothing.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import sae_jax
from sae_jax import UserError
from sae_jax.storage.atomic import read_file, reason_of
from sae_jax.storage.provenance import now, processor, source
from sae_jax.storage.record import package_versions, source_digest
from sae_jax.sweeps.devices import machine_description

ROOT = Path(__file__).parents[2]
# Commands and pages, which no reproduction reads a number from, and files of users, which none loads.
WITHOUT_NUMBERS = ("commands", "pages", "plugins")


def identity_of(module: str, packages: Iterable[str] = ()) -> dict[str, Any]:
    """What decides whether a report is of this tree: the digest of a reproduction's sources, and the versions.

    Args:
        module: of the reproduction, such as experiments.reproduce.pca.
        packages: that it reads data from.
    """
    digest = hashlib.sha256()
    for path in sources_of(module):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    versions = package_versions() | {"sae_jax": source_digest(WITHOUT_NUMBERS), "scipy": version("scipy")}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"sources": digest.hexdigest()[:12], "versions": versions}


def provenance(identity: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a report says of its making: its identity, commit, machine and time taken."""
    trees = [source(Path(sae_jax.__file__).parent), source(Path(__file__).parents[1])]
    commits = {tree["commit"] for tree in trees if tree}
    return {
        "commit": commits.pop() if len(commits) == 1 and all(trees) else None,
        "changed_since": any(tree["dirty"] for tree in trees if tree),
        **identity,
        "machine": f"{processor()}; {machine_description(jax.devices())}",
        "ended": now(),
        "seconds": round(seconds, 1),
    }


def saved_as(folder: Path, name: str, options: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any] | None:
    """The saved report of a reproduction, where it is of these options and of this tree; None otherwise."""
    with contextlib.suppress(UserError, OSError, ValueError, KeyError, TypeError, RecursionError):
        content = json.loads(read_file(folder / f"{name}.json"))
        same = content["options"] == options and all(content["made"][key] == identity[key] for key in identity)
        if same and (folder / f"{name}.png").is_file() and isinstance(content["passed"], bool):
            return dict(content)
    return None


def check_replaceable(folder: Path, name: str, options: dict[str, Any]) -> None:
    """Refuse to replace the report of a whole run by that of a quick one.

    Raises:
        UserError: the folder holds a report of this name that is of a whole run, or whose file cannot be read, and
            these options are a quick run's.
    """
    path = folder / f"{name}.json"
    if not options["quick"] or not os.path.lexists(path):
        return
    try:
        whole = json.loads(read_file(path))["options"]["quick"] is False
    except OSError as error:
        raise UserError(
            f"a quick run replaces no report that cannot be read: got {path}: {reason_of(error)}; pass another --out"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if whole:
        raise UserError(
            f"a quick run replaces no report of a whole one: got {path}; pass another --out, or leave --quick out"
        )


def sources_of(module: str) -> list[Path]:
    """The files in experiments/ of a module and of all modules there that it imports, directly or not."""
    files: set[Path] = set()
    left = [_file_of(module)]
    while left:
        path = left.pop()
        if path in files or not path.is_file():
            continue
        files.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments."):
                left += [_file_of(str(node.module)), *(_file_of(f"{node.module}.{alias.name}") for alias in node.names)]
            elif isinstance(node, ast.Import):
                left += [_file_of(alias.name) for alias in node.names if alias.name.startswith("experiments.")]
    return sorted(files)


def _file_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")

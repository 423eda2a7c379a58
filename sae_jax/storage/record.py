"""The record of a run, in its config.json, and the differences between two records."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from sae_jax.settings import UserError
from sae_jax.storage import plugin_list
from sae_jax.storage.atomic import IN_THE_WAY, mend_unread, read_file, reason_of

CONFIG_FILE = "config.json"
# Whose parameters a run's files may hold: those of all lanes, of every cell's best seed, or none.
KEEP = ("all", "best", "none")
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "xarray", "h5netcdf", "safetensors", "orbax-checkpoint"),
    *("scikit-learn", "scikit-image", "tensorflow-datasets"),
)
# What JAX may be told by its environment, beside its random numbers, that changes what is computed.
JAX_FLAGS = (
    *("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision", "jax_numpy_dtype_promotion"),
    *("jax_random_seed_offset", "jax_disable_jit", "jax_disable_most_optimizations", "jax_optimization_level"),
    *("jax_exec_time_optimization_effort", "jax_memory_fitting_effort", "jax_softmax_custom_jvp"),
)
# Parts of a record on which the bits of a result depend, versions aside; see `differences`.
COMPARED = ("settings", "axes", "run", "devices", "samples", "extends")


def content_of(
    command: str,
    settings: Mapping[str, Any],
    axes: Sequence[str],
    run: Mapping[str, Any],
    devices: list[jax.Device],
    samples: Any,
    packing: Any,
    machine: str,
    extends: str | None = None,
    started_from: str | None = None,
    plugins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What config.json holds of a run.

    Args:
        command: the command line.
        settings: every setting of the sweep.
        axes: those that vary, in order; lanes are numbered by it.
        run: how it was to be laid out.
        devices: what it is trained on.
        samples: a summary of each program's samples.
        packing: (cells_per_block, blocks_per_group) of each program.
        machine: what it is trained on, in words.
        extends: a digest of the run, or the dictionary, that it extends or starts from, if any.
        started_from: the folder that it starts from, if any.
        plugins: those that it uses, as `plugin_list.records` made them.

    Returns:
        These, and the versions of the packages that the results depend on, as values of JSON.
    """
    versions = package_versions() | {
        "random numbers": jax.config.values["jax_default_prng_impl"],
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "LIBTPU_INIT_ARGS": os.environ.get("LIBTPU_INIT_ARGS", ""),
        "machine": machine,
    }
    # What a later version of JAX no longer knows, it can no longer be told.
    versions |= {name: str(value) for name in JAX_FLAGS if (value := jax.config.values.get(name))}
    versions |= plugin_list.versions(plugins)
    content = {
        "command": command,
        "settings": settings,
        "axes": axes,
        "run": run,
        "devices": f"{len(devices)} {devices[0].platform}",
        "samples": samples,
        "packing": packing,
        "extends": extends,
        "started_from": started_from,
        "plugins": [*plugins],
        "versions": versions,
    }
    return dict(json.loads(json.dumps(content)))


def package_versions() -> dict[str, str]:
    """The versions of Python, of the packages that results depend on, and of this one."""
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return packages | {"sae_jax": source_digest()}


def merged_content(
    command: str,
    settings: Mapping[str, Any],
    axes: Sequence[str],
    folders: Sequence[Path],
    plugins: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], list[str]]:
    """What config.json holds of a run that was made of others, and lines about versions in which these differ.

    Args:
        command, settings, axes, plugins: as in `content_of`.
        folders: of the runs.
    """
    before: dict[str, dict[str, Any]] = {}
    for folder in folders:
        with contextlib.suppress(UserError):  # Its results say what was trained; this adds how.
            before[str(folder)] = read_record(folder / CONFIG_FILE)
    first = next(iter(before.values()), {})
    lines = [
        f"warning: merged runs are best of the same versions: got {change} in {folder}"
        for folder, record in before.items()
        for change in changed_versions(first, record)
    ]
    content = {
        "command": command,
        "settings": settings,
        "axes": axes,
        "run": {},
        "devices": " and ".join(dict.fromkeys(str(one.get("devices")) for one in before.values())),
        "samples": None,
        "packing": [list(size) for size in dict.fromkeys(tuple(s) for one in before.values() for s in one["packing"])],
        "extends": None,
        "merged": [str(folder) for folder in folders],
        "plugins": [*plugins],
        "versions": first.get("versions", {}),
    }
    return dict(json.loads(json.dumps(content))), lines


def source_digest(without: Collection[str] = ()) -> str:
    """The beginning of a digest of this package's source, but for some rooms: it changes between releases, too."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in without:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_record(path: Path) -> dict[str, Any]:
    """The record in a config.json.

    Raises:
        UserError: it is not what its name says.
    """
    try:
        content = json.loads(read_file(path))
        kinds = {"command": str, "devices": str, "settings": dict, "run": dict, "versions": dict}
        if any(not isinstance(content[name], kind) for name, kind in kinds.items()):
            raise ValueError
        shlex.split(content["command"])
        for cells_per_block, blocks_per_group in content["packing"]:
            if any(type(size) is not int or size < 1 for size in (cells_per_block, blocks_per_group)):
                raise ValueError
    except OSError as error:
        fix = mend_unread(error, IN_THE_WAY)
        line = f"cannot resume: {CONFIG_FILE} must be readable: got {path}: {reason_of(error)}; {fix}"
        raise UserError(line) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"cannot resume: {CONFIG_FILE} must be as the run wrote it at its start: got {path}; choose another --name"
        ) from None
    return dict(content)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], unnamed: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """Settings and inputs, of those that the bits of a result depend on, that differ between records: NAME A -> B.

    Args:
        before, now: the records.
        unnamed: what settings were where the first one does not name them: an earlier version had fewer.
    """
    changes = []
    for part in COMPARED:
        old, new = before.get(part), now[part]
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new = {part: old}, {part: new}
        else:
            old = {name: value for name, value in unnamed.items() if name in new} | old
        for name in [*new, *(name for name in old if name not in new)]:
            if name == "dataset" and before.get("samples") == now["samples"]:
                continue  # The same file at another place.
            if old.get(name) != new.get(name):
                values = "" if part == "samples" else f" {_short(old.get(name))} -> {_short(new.get(name))}"
                changes.append(f"{name}{values}")
    return changes


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], unnamed: Mapping[str, Any]) -> None:
    """Refuse to resume a run by another command, or on other samples or devices.

    Args:
        folder: of the run.
        before, now: its record, and that of the command that is to resume it.
        unnamed: as in `differences`.

    Raises:
        UserError: something differs.
    """
    changes = differences(before, now, unnamed)
    if command_name(before["command"]) != command_name(now["command"]):
        changes.insert(0, f"command {call_of(before['command'])} -> {call_of(now['command'])}")
    if not changes:
        return
    fix, names = f"repeat {before['command']}", [change.split()[0] for change in changes]
    if names == ["devices"]:
        fix = f"add --devices {str(before['devices']).partition(' ')[0]}"
    elif all(name in unnamed and name not in before["settings"] for name in names):
        # The command does not name it either, and its default has changed meanwhile.
        fix = " ".join(["add", *(f"--{name.replace('_', '-')} {_short(unnamed[name])}" for name in names)])
    raise UserError(
        f"cannot resume: the command must be the one that started the run: got {folder} with {', '.join(changes)}; "
        f"{fix}, or choose another --name"
    )


def changed_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The versions that have changed since a run began, those of its plug-ins among them: NAME A -> B."""
    old, new = before["versions"], now["versions"]
    names = [*new, *(name for name in old if name not in new)]
    names = [name for name in names if not name.startswith(plugin_list.IN_VERSIONS)]
    changed = plugin_list.changes(*(plugin_list.valid(one.get("plugins")) for one in (before, now)))
    return changed + [
        f"{name} {old.get(name)} -> {new.get(name)}" for name in names if (old.get(name) or "") != (new.get(name) or "")
    ]


def arguments_of(content: Mapping[str, Any], call: str) -> list[str]:
    """The arguments of the command that started a run.

    Args:
        content: the run's record.
        call: how the command that resumes it was called, see `call_of`; the run may have been started in the other way.

    Raises:
        UserError: it is another command.
    """
    line, name = content["command"], command_name(call)
    if command_name(line) != name:
        fix = call.removesuffix(name) + command_name(line)
        raise UserError(f"cannot resume: the command must be the one that started the run: got {call}; use {fix}")
    return shlex.split(line)[len(call_of(line).split()) :]


def call_of(line: str) -> str:
    """The beginning of a command line: python -m experiments.NAME, or sae-jax NAME."""
    words = line.split()
    return " ".join(words[: 2 if words[:1] == ["sae-jax"] else 3])


def command_name(line: str) -> str:
    """The NAME of a command line's call, which says what was run in whichever way."""
    return call_of(line).rpartition(" ")[2].removeprefix("experiments.")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_short, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)

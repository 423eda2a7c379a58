"""What config.json records of a run, and what two records differ in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from sae_jax.settings import UserError
from sae_jax.sweeps.devices import cpu_cores

CONFIG_FILE = "config.json"
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "xarray", "h5netcdf", "safetensors", "orbax-checkpoint"),
    *("scikit-learn", "scikit-image", "tensorflow-datasets"),
)
# What the bits of a result depend on and a command says, or what it is run on; see `differences`.
COMPARED = ("settings", "axes", "run", "devices", "samples")


def content_of(
    command: str,
    settings: Mapping[str, Any],
    axes: Sequence[str],
    run: Mapping[str, Any],
    devices: list[jax.Device],
    samples: Any,
    packing: Any,
) -> dict[str, Any]:
    """What config.json holds of a run.

    Args:
        command: the command line.
        settings: every setting of the sweep.
        axes: those that vary, in order; lanes are numbered by it.
        run: how it was to be laid out.
        devices: what it is trained on.
        samples: by what each program's samples are known again.
        packing: (cells_per_block, blocks_per_group) of each program.

    Returns:
        These, and the versions of the packages that the results depend on, as values of JSON.
    """
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    versions |= {
        "sae_jax": _own_version(),
        "random numbers": jax.config.values["jax_default_prng_impl"],
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "machine": f"{platform.machine()}, {cpu_cores()} cores, {devices[0].device_kind}",
    }
    content = {
        "command": command,
        "settings": settings,
        "axes": axes,
        "run": run,
        "devices": f"{len(devices)} {devices[0].platform}",
        "samples": samples,
        "packing": packing,
        "versions": versions,
    }
    return dict(json.loads(json.dumps(content)))


def _own_version() -> str:
    """The beginning of a digest of this package's source: it changes between releases, too."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_record(path: Path) -> dict[str, Any]:
    """The record in a config.json.

    Raises:
        UserError: it is not what its name says.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content["command"], str) or any(
            not isinstance(content[name], dict) for name in ("settings", "run", "versions")
        ):
            raise ValueError
        shlex.split(content["command"])
        for cells_per_block, blocks_per_group in content["packing"]:
            if any(type(size) is not int or size < 1 for size in (cells_per_block, blocks_per_group)):
                raise ValueError
    except OSError as error:
        raise UserError(f"a run's {CONFIG_FILE} must be readable: got {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"a run's {CONFIG_FILE} must be what was written when it began: got {path}; choose another --name"
        ) from None
    return dict(content)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two runs of a command differ in, of all that the bits of their results depend on: NAME A -> B."""
    found = []
    for part in COMPARED:
        one, other = before.get(part), now[part]
        if not isinstance(one, dict) or not isinstance(other, dict):
            one, other = {part: one}, {part: other}
        for name in [*other, *(name for name in one if name not in other)]:
            if one.get(name) != other.get(name):
                values = "" if part == "samples" else f" {_short(one.get(name))} -> {_short(other.get(name))}"
                found.append(f"{name}{values}")
    return found


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run by another command, on other samples or devices.

    Args:
        folder: of the run.
        before, now: its record, and that of the command that would go on with it.

    Raises:
        UserError: something differs.
    """
    changed = differences(before, now)
    if command_name(before["command"]) != command_name(now["command"]):
        changed.insert(0, f"command {call_of(before['command'])} -> {call_of(now['command'])}")
    if not changed:
        return
    fix = f"repeat {before['command']}"
    if [one.split()[0] for one in changed] == ["devices"]:
        fix = f"add --devices {str(before['devices']).partition(' ')[0]}"
    raise UserError(
        f"a run must be gone on with as it was begun: got {folder} with {', '.join(changed)}; {fix}, "
        "or choose another --name"
    )


def changed_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The versions that have changed since a run began: NAME A -> B."""
    one, other = before["versions"], now["versions"]
    return [f"{name} {one.get(name)} -> {other[name]}" for name in other if one.get(name) != other[name]]


def words_of(content: Mapping[str, Any], call: str) -> list[str]:
    """The words of the command that began a run, without its call.

    Args:
        content: the run's record.
        call: how the command that goes on with it was called, see `call_of`; it may differ from how the run began.

    Raises:
        UserError: it is another command.
    """
    line, name = content["command"], command_name(call)
    if command_name(line) != name:
        fix = call.removesuffix(name) + command_name(line)
        raise UserError(f"a run must be gone on with by the command that began it: got {call}; use {fix}")
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

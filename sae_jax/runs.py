"""The folder of a run: begun once, held by one process at a time, and gone on with until it is finished."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout

from sae_jax.arrays import unwritable
from sae_jax.results import RESULTS_FILE
from sae_jax.settings import UserError

CONFIG_FILE, LOCK_FILE, UNFINISHED, CHECKPOINTS = "config.json", ".lock", "unfinished", "checkpoints"
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "xarray", "h5netcdf", "safetensors", "orbax-checkpoint"),
    *("scikit-learn", "scikit-image", "tensorflow-datasets"),
)
# What the bits of a result depend on and a command says, or what it is run on; see `differences`.
COMPARED = ("settings", "run", "devices", "samples")


def content_of(
    command: str,
    settings: Mapping[str, Any],
    run: Mapping[str, Any],
    devices: list[jax.Device],
    samples: Any,
    packing: Any,
) -> dict[str, Any]:
    """What config.json holds of a run.

    Args:
        command: the command line.
        settings: every setting of the sweep.
        run: how it was to be laid out.
        devices: what it is trained on.
        samples: by what each program's samples are known again.
        packing: (cells_per_block, blocks_per_group) of each program.

    Returns:
        These, and the versions of the packages that the results depend on, as values of JSON.
    """
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    versions |= {"machine": platform.machine(), "random numbers": jax.config.jax_default_prng_impl}  # type: ignore[attr-defined]
    content = {
        "command": command,
        "settings": settings,
        "run": run,
        "devices": f"{len(devices)} {devices[0].platform}",
        "samples": samples,
        "packing": packing,
        "versions": versions,
    }
    return dict(json.loads(json.dumps(content)))


def recorded(folder: Path) -> dict[str, Any]:
    """The content of an unfinished run's config.json.

    Raises:
        UserError: there is none, it is not what its name says, or the run is finished.
    """
    path = folder / CONFIG_FILE
    if not is_unfinished(folder):
        found = "a finished run" if (folder / RESULTS_FILE).is_file() else "none"
        raise UserError(f"a run to go on with must be unfinished: got {folder}, which holds {found}; see --runs")
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content["command"], str) or any(
            not isinstance(content[name], dict) for name in ("settings", "run", "versions")
        ):
            raise ValueError
        shlex.split(content["command"])
        sizes = [size for sizes in content["packing"] for size in sizes]
        if any(type(size) is not int or size < 1 for size in sizes) or len(sizes) != 2 * len(content["packing"]):
            raise ValueError
    except OSError as error:
        raise UserError(f"a run's {CONFIG_FILE} must be readable: got {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"a run's {CONFIG_FILE} must be what was written when it began: got {path}; choose another --name"
        ) from None
    return dict(content)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that has begun and has not written all of its files."""
    begun = (folder / CONFIG_FILE).is_file()
    return begun and ((folder / UNFINISHED).is_dir() or not (folder / RESULTS_FILE).exists())


def check_claimable(folder: Path) -> None:
    """Refuse a folder that holds something else than an unfinished run, or that could not be made.

    Raises:
        UserError: it does, it is no folder, or the folder that would hold it cannot be written to.
    """
    try:
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        taken = folder.is_symlink() or (
            folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir()))
        )
        unfinished = is_unfinished(folder) and not folder.is_symlink()
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    if taken and not unfinished:
        raise UserError(
            f"the run's folder must be new, empty or of an unfinished run: got {folder}; choose another --name"
        )
    if not parent.is_dir():
        raise unwritable(folder, f"{parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise unwritable(folder, f"{parent} is read-only")


def find_unfinished(runs: Path, content: Mapping[str, Any]) -> Path | None:
    """The newest folder of an unfinished run of the same command that no process is at work in; None without one."""
    found = []
    with contextlib.suppress(OSError):
        for folder in runs.iterdir():
            with contextlib.suppress(UserError):
                before = recorded(folder)
                if _module(before) == _module(content) and not differences(before, content) and not _held(folder):
                    found.append(folder)
    return max(found, key=lambda folder: (folder / CONFIG_FILE).stat().st_mtime, default=None)


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


@contextlib.contextmanager
def claim(folder: Path, content: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Hold a run's folder: made, with config.json in it, before anything is trained, or gone on with.

    Where the body ends well, the run is finished, and what was there to go on with is taken away. Where it fails before
    it has kept anything, all that was made is taken away again.

    Args:
        folder: new, empty, or of an unfinished run.
        content: as `content_of` returns it.

    Returns:
        What config.json held where the run had begun before; None for a new run.

    Raises:
        UserError: the folder holds another run, one of another command, or one that a process is at work in, or it
            cannot be written to.
    """
    check_claimable(folder)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"one process at a time may be at work in a run's folder: got {folder}, held by another; "
            "wait for its end or choose another --name"
        ) from None
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    before: dict[str, Any] | None = None
    try:
        check_claimable(folder)  # The process that held it a moment ago may have finished it.
        if is_unfinished(folder):
            before = recorded(folder)
            _same(folder, before, content)
        try:
            if before is None:
                _write(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
            (folder / UNFINISHED).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error.strerror) from None
        yield before
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    except BaseException:
        if before is None and not _kept(folder):
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
            (folder / CONFIG_FILE).unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # The folder may have vanished.
            (folder / LOCK_FILE).unlink(missing_ok=True)
            lock.release()
            if not any(folder.iterdir()):
                folder.rmdir()


def _same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = differences(before, now)
    if _module(before) != _module(now):
        changed.insert(0, f"command {_module(before)} -> {_module(now)}")
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


def words_of(content: Mapping[str, Any], module: str) -> list[str]:
    """The words of the command that began a run, without its module.

    Raises:
        UserError: it is another module.
    """
    begun = _module(content)
    if begun != f"python -m {module}":
        raise UserError(f"a run must be gone on with by the command that began it: got python -m {module}; use {begun}")
    return shlex.split(content["command"])[3:]


def _module(content: Mapping[str, Any]) -> str:
    return " ".join(content["command"].split()[:3])


def _held(folder: Path) -> bool:
    """Whether a process is at work in a folder."""
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _kept(folder: Path) -> bool:
    """Whether there is anything that a later process could go on with."""
    return (folder / RESULTS_FILE).exists() or any((folder / UNFINISHED / CHECKPOINTS).glob("*/*"))


def _write(path: Path, text: str) -> None:
    """Write a file that appears in one move, once it is on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # A link that somebody has left there would be written through.
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_short, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What every command sets up before it computes, and how those without a run's folder write their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

from sae_jax.settings import UserError
from sae_jax.storage.atomic import temporary_path, unwritable, write_file, writing


def set_up() -> None:
    """Keep compiled programs in the user's cache, unless JAX was told of another place."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def call(command: str) -> str:
    """How a command is called the way that this process was: sae-jax COMMAND, or from a clone's scripts."""
    return f"sae-jax {command}" if Path(sys.argv[0]).stem == "sae-jax" else f"python -m experiments.{command}"


def draw_to_files() -> None:
    """Draw without a window."""
    import matplotlib  # Training need not wait for it.

    matplotlib.use("Agg")


def cache_folder() -> Path:
    """Where compiled programs of this kind of machine are kept: in $XDG_CACHE_HOME, or else ~/.cache.

    A home folder may be shared by machines of different processors; a program compiled for one may not run on another.
    """
    processor = platform.processor() + platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    kind = hashlib.sha256(processor.encode()).hexdigest()[:12]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sae_jax" / kind


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder, named by a flag, in which no file could be made, before anything is computed for it.

    Raises:
        UserError: it, or what it would be made in, is no folder or is read-only.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is read-only" if existing.is_dir() else "is no folder"
        raise unwritable(folder, f"{existing} {reason}", flag, "choose another")


def check_file(path: Path, flag: str) -> None:
    """Refuse a file, named by a flag, that could not be written, before anything is computed for it.

    Raises:
        UserError: it is a folder, or its own folder is missing or read-only, or its name is too long.
    """
    try:
        if os.path.isdir(path):
            raise IsADirectoryError
        temporary = temporary_path(path)
        temporary.unlink(missing_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError:
        raise UserError(f"{flag} must name a file that can be written: got {path}; choose another") from None


def write_whole(path: Path, content: bytes, flag: str) -> None:
    """Write a file in one move, its folder made where it is missing: it is there as a whole, or as it was before.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path, flag, "choose another"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)

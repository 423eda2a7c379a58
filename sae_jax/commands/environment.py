"""What every command sets up before it computes, and how those without a run's folder write their files."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import os
import platform
import re
import resource
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from sae_jax.settings import UserError
from sae_jax.storage.atomic import (
    check_expanded,
    check_regular,
    temporary_path,
    unwritable,
    user_cache,
    write_file,
    writing,
)

if TYPE_CHECKING:
    import xarray as xr

FEWEST_FILES = 64
# What is imported and compiled takes 2 GiB of addresses at least, as measured with 2 devices; each more 12 MiB.
FEWEST_ADDRESSES = 5 * 2**29
COMPILE_TIME = "jax_persistent_cache_min_compile_time_secs"
CACHE_TROUBLE = re.compile(
    r"Error (?P<action>reading|writing) persistent compilation cache entry for '(?P<program>.*)': "
    r"\w+: (\[Errno (?P<number>\d+)\] )?(?P<reason>.*?)(: '.*')?",
    re.DOTALL,
)


def set_up() -> None:
    """Keep compiled programs in the user's cache, unless the variables of JAX name another place or time.

    A cache that cannot be used costs time alone: a line says so, and what was cut short there is compiled again.

    Raises:
        UserError: the process may open too few files to train, or has too few addresses.
    """
    _check_limits()
    if jax.config.values["jax_compilation_cache_dir"] is None and (folder := cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if COMPILE_TIME.upper() not in os.environ:
            jax.config.update(COMPILE_TIME, 0.1)
    # Also for who has warnings raised: what is told in a line ends no command.
    warnings.filterwarnings("always", CACHE_TROUBLE.pattern)
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning, set())


def _check_limits() -> None:
    # Without a file to open, libraries end in ways of their own, after the training; without an address, the compiler.
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < FEWEST_FILES:
        raise UserError(f"the limit of open files must be at least {FEWEST_FILES}: got {allowed}; raise ulimit -n")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= allowed < FEWEST_ADDRESSES:
        fewest = f"the limit of addresses must be at least {FEWEST_ADDRESSES // 2**10:,} kB"
        raise UserError(f"{fewest}: got {allowed // 2**10:,} kB; raise ulimit -v")


def _show_warning(show: Callable[..., None], shown: set[str], message: Warning | str, *rest: Any, **named: Any) -> None:
    """Show a warning the way it was shown before, unless JAX says that it could not use its cache."""
    trouble = CACHE_TROUBLE.fullmatch(str(message))
    if not trouble:
        show(message, *rest, **named)
        return
    folder = Path(jax.config.values["jax_compilation_cache_dir"])
    with contextlib.suppress(OSError):
        if trouble["action"] == "reading" and folder.is_dir():
            # JAX would stumble over the entry for ever: it writes none where one is, and does not say which it was.
            for entry in folder.glob(f"{glob.escape(trouble['program'])}-*-cache"):
                entry.unlink()
            return
    if not shown:
        shown.add(trouble["reason"])
        line = f"warning: compiled programs cannot be kept: got {folder}: {trouble['reason']}"
        fix = "make room there, or " * (int(trouble["number"] or 0) in (errno.ENOSPC, errno.EDQUOT))
        print(f"{line}; {fix}name another folder in JAX_COMPILATION_CACHE_DIR", file=sys.stderr)


def call(command: str) -> str:
    """How a command is called the way that this process was: sae-jax COMMAND, or from a clone's scripts."""
    return f"sae-jax {command}" if Path(sys.argv[0]).stem == "sae-jax" else f"python -m experiments.{command}"


def draw_usual(dataset: xr.Dataset, folder: Path) -> list[Path]:
    """Draw a sweep's usual figures into a folder; their paths."""
    from sae_jax.analysis.figures import save_all  # Training need not wait for it.

    return save_all(dataset, folder)


def cache_folder() -> Path | None:
    """Where compiled programs of this kind of machine are kept for the user; None for one without a home folder.

    A home folder may be shared by machines of different processors; a program compiled for one may not run on another.
    """
    processor = platform.processor() + platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    kind = hashlib.sha256(processor.encode()).hexdigest()[:12]
    try:
        return user_cache() / kind
    except RuntimeError:
        return None


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder, named by a flag, in which no file could be made, before anything is computed for it.

    Raises:
        UserError: it, or what it would be made in, is no folder or is read-only, or it is of an unfinished run.
    """
    check_expanded(folder, flag)
    check_not_of_run(folder, flag)
    with writing(folder, flag, "choose another"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(folder)  # A name that is too long, or a link that leads to itself, is not one of a folder to be made.
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is read-only" if existing.is_dir() else "is no folder"
        raise unwritable(folder, f"{existing} {reason}", flag, "choose another")


def check_new_folder(folder: Path, flag: str) -> None:
    """Refuse a folder, named by a flag, that holds something, or in which nothing could be made.

    Raises:
        UserError: it does, or is none, or cannot be looked into, or is of an unfinished run; or `check_writable`
            refuses it.
    """
    check_not_of_run(folder, flag)
    with writing(folder, flag, "choose another"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(os.stat(folder).st_mode) or any(folder.iterdir()):
            rule = f"{flag} must be a new or an empty folder"
            raise UserError(f"{rule}: got {folder}, which holds something; choose another")
    check_writable(folder, flag)


def check_not_of_run(path: Path, flag: str) -> None:
    """Refuse what a run is made of: written over, the run would be lost.

    Args:
        path: what is to be written.
        flag: that named it.

    Raises:
        UserError: it is a file that a run's folder is known by, or lies among those of an unfinished run.
    """
    # Help need not wait for what reads runs.
    from sae_jax.analysis.summary import SUMMARY_FILE
    from sae_jax.storage.run_folder import OWN_FILES, UNFINISHED, holds_run

    # The file itself may be a link, which would be replaced; the names above it lead where they lead.
    place = Path(os.path.realpath(path.parent)) / path.name
    of_run = place.name in (*OWN_FILES, SUMMARY_FILE) and holds_run(place.parent)
    unfinished = (one.parent for one in (place, *place.parents) if one.name == UNFINISHED and holds_run(one.parent))
    if run := place.parent if of_run else next(unfinished, None):
        raise UserError(f"{flag} must be none of a run's own files: got {path}, of the run {run}; choose another")


def check_file(path: Path, flag: str) -> None:
    """Refuse a file, named by a flag, that could not be written, before anything is computed for it.

    Raises:
        UserError: it is no regular file, or its own folder is missing or read-only, its name is too long, or it is one
            of a run's own.
    """
    check_expanded(path, flag)
    check_not_of_run(path, flag)
    try:
        check_regular(path)
        with temporary_path(path) as temporary:
            temporary.touch()
    except FileNotFoundError:
        raise unwritable(path, f"there is no folder {path.parent}", flag, "make it first, or choose another") from None
    except OSError as error:
        raise unwritable(path, error, flag, "choose another") from None


def write_whole(path: Path, content: bytes, flag: str) -> None:
    """Write a file in one move, its folder made where it is missing: it is there as a whole, or as it was before.

    Raises:
        UserError: it cannot be written, or is one of a run's own.
    """
    check_not_of_run(path, flag)
    with writing(path, flag, "choose another"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)

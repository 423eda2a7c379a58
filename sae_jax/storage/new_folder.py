"""A folder that is filled in one move."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sae_jax.storage.atomic import move, temporary_path

# Whose rights count; some systems know those of the real user alone.
EFFECTIVE = os.access in os.supports_effective_ids


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose content is moved to another at the end of the body: all of it, or nothing.

    Args:
        folder: a new or an empty one. One that cannot be replaced, where a disk is mounted, a process runs or nothing
            may be made beside it, gets files and folders one after another.

    Yields:
        Where to write.

    Raises:
        OSError: the file system refuses.
    """
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    replaceable = os.access(target.parent, os.W_OK | os.X_OK, effective_ids=EFFECTIVE) and not os.path.ismount(target)
    inside = target.is_dir() and not (replaceable and str(target) != os.getcwd())
    with temporary_path(target / target.name if inside else target) as unfinished:
        unfinished.mkdir()
        yield unfinished
        if not inside:
            move(unfinished, target)
            return
        for path in sorted(unfinished.iterdir()):
            move(path, target / path.name)

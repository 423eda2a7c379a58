"""What every command sets up before it computes: figures go to files, and compiled programs are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax
import matplotlib


def set_up() -> None:
    """Draw without a window, and keep compiled programs in the user's cache, unless JAX was told of another place."""
    matplotlib.use("Agg")
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


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

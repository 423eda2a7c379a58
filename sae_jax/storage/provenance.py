"""Where a run was trained, when, how long and from which source: provenance.json, an entry for every process.

It stands beside config.json, which is what a run is known again by: nothing here decides whether a run may be resumed.
"""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from sae_jax.storage.atomic import read_file, write_file, writing

PROVENANCE_FILE, LOG_FILE = "provenance.json", "log.txt"
# Where trackers of experiments put their files.
TENSORBOARD, WANDB = "tensorboard", "wandb"
# No process runs for 30 years.
MOST_SECONDS = 1e9
PACKAGE = Path(__file__).parents[1]


def session_of(command: str, devices: str, machine: str, processes: int, versions: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a process when it begins to work on a run.

    Args:
        command: its command line.
        devices: their number and kind, in words.
        machine: processor and cores, in words.
        processes: how many work together.
        versions: of packages, by name.
    """
    return {
        "command": command,
        "began": now(),
        "ended": None,
        "seconds": None,
        "outcome": None,
        "host": platform.node(),
        "system": platform.platform(),
        "machine": machine,
        "processor": processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "devices": devices,
        "processes": processes,
        "source": source(),
        "versions": dict(versions),
    }


def now() -> str:
    """The time, to the second, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def source(package: Path = PACKAGE) -> dict[str, Any] | None:
    """The git commit of a package's source, and whether the source has changed since; None where git knows none."""
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    if not tracked or not commit or changes is None:  # It may lie in a repository of something else.
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails, or is not there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
        return done.stdout.decode(errors="backslashreplace").strip() if done.returncode == 0 else None
    return None


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's provenance.json; none where it is missing or is not what its name says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        sessions = json.loads(read_file(folder / PROVENANCE_FILE))["sessions"]
        return [dict(one) for one in sessions]
    return []


def write_sessions(folder: Path, sessions: list[dict[str, Any]]) -> None:
    """Write a run's provenance.json, with the seconds of all entries together.

    Raises:
        UserError: the folder cannot be written to.
    """
    content = {"seconds": seconds_of(sessions), "sessions": sessions}
    with writing(folder):
        write_file(folder / PROVENANCE_FILE, (json.dumps(content, indent=1) + "\n").encode())


def seconds_of(sessions: list[dict[str, Any]]) -> float:
    """How long processes have worked on a run; of those that were killed, or say what cannot be, nothing is known."""
    known = [one.get("seconds") for one in sessions]
    numbers = [one for one in known if isinstance(one, (int, float)) and not isinstance(one, bool)]
    return round(sum(float(one) for one in numbers if 0 <= one <= MOST_SECONDS), 3)

"""What a page says of how a run was made: settings, versions, the command, and how to cite."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from sae_jax.analysis.cells import shorts
from sae_jax.analysis.run import Run
from sae_jax.settings import UserError, printable
from sae_jax.storage.provenance import read_sessions, seconds_of
from sae_jax.storage.record import CONFIG_FILE, read_record
from sae_jax.sweeps.lane_warnings import warnings_of

# As in CITATION.cff; a test holds the two together.
TITLE = "sae_jax: sparse autoencoders in JAX, a whole ablation study as one program"


def about_part(run: Run, folder: Path | None) -> dict[str, Any]:
    """Settings, versions, the command and the machine of a run, in words.

    Args:
        run: whose they are.
        folder: where its record lies; None where it has none.
    """
    record: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        record = read_record(folder / CONFIG_FILE) if folder else {}
    sessions = read_sessions(folder) if folder else []
    last = sessions[-1] if sessions else {}
    versions = last.get("versions") or record.get("versions") or {}
    made = {
        "began": sessions[0].get("began") if sessions else None,
        "duration": f"{seconds_of(sessions):.0f} s" if sessions and all(one.get("seconds") for one in sessions) else "",
        "machine": last.get("machine"),
        "devices": last.get("devices") or record.get("devices"),
        "system": last.get("system"),
        "source": _commit(last.get("source")),
    }
    versions = versions if isinstance(versions, dict) else {}
    return {
        "command": printable(record.get("command", "")),
        "settings": _settings(run),
        "made": [[name, printable(str(value))] for name, value in made.items() if value],
        "versions": [[str(name), printable(str(one))] for name, one in versions.items() if one],
        "warnings": [printable(line) for line in warnings_of(run.dataset)],
    }


def citation(version: str) -> str:
    """How to cite this package, as BibTeX."""
    title = TITLE.replace("_", r"\_")
    return (
        f"@software{{sae_jax,\n  title = {{{title}}},\n  author = {{{{The sae\\_jax authors}}}},\n"
        f"  version = {{{version}}},\n  license = {{Apache-2.0}}\n}}"
    )


def _settings(run: Run) -> list[list[Any]]:
    """Name, values and meaning of every setting, swept ones first."""
    rows = []
    for name, field in run.fields.items():
        if name not in run.dataset.coords:
            continue
        values = np.atleast_1d(run.dataset[name].values).tolist()
        words = shorts(dict.fromkeys(values))
        rows.append([name, printable(", ".join(words)), field.metadata["help"], len(words) > 1])
    return sorted(rows, key=lambda row: not row[3])


def _commit(source: Any) -> str:
    if not isinstance(source, dict):
        return ""
    changed = ", with changes that are not committed" if source.get("dirty") else ""
    return f"git commit {source.get('commit')}{changed}"

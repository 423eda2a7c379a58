"""Runs in words: the list of those in a folder, and what is known of one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from sae_jax.analysis.report import print_table
from sae_jax.settings import UserError, printable
from sae_jax.storage import plugin_list, results
from sae_jax.storage.provenance import read_sessions, seconds_of
from sae_jax.storage.record import CONFIG_FILE, command_name, read_record
from sae_jax.storage.run_folder import UNFINISHED
from sae_jax.storage.run_list import Run
from sae_jax.sweeps.consoles import plain_console
from sae_jax.sweeps.footprint import megabytes
from sae_jax.sweeps.lane_warnings import warnings_of

UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def print_list(runs: Sequence[Run], where: str) -> None:
    """Print a row for every run."""
    if not runs:
        print(f"no runs in {where}")
        return
    table = Table(title=f"runs in {where}", title_justify="left")
    for heading, side in (("run", "left"), ("state", "left"), ("size", "right"), ("age", "right")):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for run in runs:
        unfinished = run.state == UNFINISHED and run.has_results
        state = f"{run.state} (has results)" if unfinished else run.state
        table.add_row(run.folder.name, state, megabytes(run.size), ago(run.age))
    plain_console().print(table)


def print_run(run: Run, call: Callable[[str], str]) -> None:
    """Print what is known of a run.

    Args:
        run: as `run_at` returns it.
        call: how a command is called.

    Raises:
        UserError: its files are not what their names say.
    """
    console = plain_console()
    print(f"{run.folder}: {run.state}, {megabytes(run.size)}, changed {ago(run.age)} ago")
    record = None
    try:
        record = read_record(run.folder / CONFIG_FILE)
    except UserError:
        print(f"{CONFIG_FILE} is missing or damaged: the command is not known")
    if run.has_results:
        dataset = results.load(run.folder)
        print_table(console, dataset)
        for line in warnings_of(dataset):
            print(line)
    if record:
        print(printable(f"command: {record['command']}"))
    sessions = read_sessions(run.folder)
    for line in _made(sessions):
        print(printable(line))
    versions = sessions[-1].get("versions") if sessions else record and record["versions"]
    if isinstance(versions, dict):
        words = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        print(printable(f"versions: {words}"))
    if record and run.state == UNFINISHED:
        plugins = plugin_list.flags(plugin_list.valid(record.get("plugins")))
        begun = call(command_name(record["command"]))
        print(printable(f"to resume: {begun} --resume {shlex.quote(str(run.folder))}{plugins}"))


def _made(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """Lines about how long a run took, and on what."""
    if not sessions:
        return []
    lines = []
    took, killed = seconds_of(list(sessions)), sum(one.get("seconds") is None for one in sessions)
    several = f" in {len(sessions)} processes, one after another" if len(sessions) > 1 else ""
    unknown = f", and that of {killed} which did not come to an end" if killed else ""
    lines.append(f"duration: {clock(took)}{several}{unknown}; began {sessions[0].get('began')}")
    last = sessions[-1]
    lines.append(
        f"machine: {last.get('host')}, {last.get('processor')}, {last.get('memory_gib')} GiB, {last.get('devices')} "
        f"devices, {last.get('system')}"
    )
    source = last.get("source")
    if isinstance(source, dict):
        changed = ", with changes that are not committed" if source.get("dirty") else ""
        lines.append(f"source: git commit {source.get('commit')}{changed}")
    return lines


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def ago(seconds: float) -> str:
    """An age in one unit: 3 days."""
    name, size = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
    number = int(seconds // size)
    return f"{number} {name}{'' if number == 1 else 's'}"

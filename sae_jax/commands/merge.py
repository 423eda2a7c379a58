"""Put finished runs of different settings or seeds together as one.

    python -m experiments.merge runs/a runs/b --name both

Lanes that several of them hold alike are taken once; what none of them holds is missing in the new run's grid. The runs
stay as they are. Repeated, the command finds that it is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_jax.commands.environment import call, draw_usual
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import TEXT, UserError, setting

if TYPE_CHECKING:
    import xarray as xr

    from sae_jax.commands.run_log import RunLog


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the new run goes."""

    name: str = setting("", TEXT, "name of the new run")
    runs: str = setting("runs", TEXT, "folder of all runs")

    def __post_init__(self) -> None:
        if not self.name or self.name == ".." or self.name != Path(self.name).name:
            raise UserError(f"name must be that of a new folder inside --runs: got {self.name or 'none'}; give --name")


def main(argv: list[str]) -> None:
    """Read, merge, save, draw, tell."""
    with one_line_errors():
        load_plugins(argv)
        positional = option("run", ("",), "folders of finished runs", "RUN", True, positional=True)
        groups: dict[str, list[Any]] = {"merge": [positional, *options_of(Where)]}
        words = read(argv, call("merge"), (__doc__ or "").partition("\n")[0], groups)
        where, names = checked_settings(Where, words), [name for name in words["run"] if name]
        if len(names) < 2:
            given = " ".join(names) or "none"
            raise UserError(
                f"merge needs the folders of several finished runs, before its flags: got {given}; see runs/"
            )
        # Help need not wait for all that reads and draws.
        from sae_jax.commands.run_log import RunLog
        from sae_jax.storage import record as records
        from sae_jax.storage import results
        from sae_jax.storage import run_folder as runs
        from sae_jax.storage.plugin_list import recorded
        from sae_jax.sweeps.merge import merge
        from sae_jax.sweeps.reading import grid_of

        end_in_order()
        folder = Path(where.runs) / where.name
        repeated = _is_of(folder, names)
        if not repeated:
            runs.check_claimable(folder)
        dataset = merge(*(results.load(name) for name in names), names=names)
        grid = grid_of(dataset)
        command = f"{call('merge')} {shlex.join(argv)}"
        content, lines = records.merged_content(
            command, grid.as_json(), list(grid.dims), [Path(name) for name in names], recorded(dataset)
        )
        with contextlib.closing(RunLog()) as log:
            for line in lines:
                print(line)
                log.line(line)
            if repeated and _holds(folder, dataset):
                runs.tidy(folder)
                files = [path for path in _files(folder) if path.exists()]
            else:
                files = _write(dataset, folder, content, log)
            _tell(dataset, files, log)


def _is_of(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds a finished merge of some runs, by its record."""
    from sae_jax.storage.record import CONFIG_FILE, read_record
    from sae_jax.storage.run_folder import is_finished

    with contextlib.suppress(UserError):
        return is_finished(folder) and read_record(folder / CONFIG_FILE).get("merged") == [
            str(Path(name)) for name in names
        ]
    return False


def _holds(folder: Path, dataset: xr.Dataset) -> bool:
    """Whether a finished run holds a Dataset, whatever tasks have added to it."""
    from sae_jax.storage import results

    before, names = results.load(folder), list(dataset.data_vars)
    return set(names) <= set(before.data_vars) and before[names].identical(dataset)


def _write(dataset: xr.Dataset, folder: Path, content: Mapping[str, Any], log: RunLog) -> list[Path]:
    """Write a new run: its files."""
    from sae_jax.analysis.summary import write_summary
    from sae_jax.commands.run_log import recorded
    from sae_jax.storage import results
    from sae_jax.storage import run_folder as runs
    from sae_jax.storage.provenance import session_of
    from sae_jax.storage.record import package_versions
    from sae_jax.sweeps.devices import cpu_cores

    machine = f"{platform.machine()}, {cpu_cores()} cores"
    session = session_of(content["command"], "0", machine, 1, package_versions())
    with runs.claim(folder, content), recorded(folder, session, log):
        results.save(dataset, folder)
        return [*_files(folder), write_summary(dataset, folder), *draw_usual(dataset, folder / "figures")]


def _files(folder: Path) -> list[Path]:
    """The files that every run has."""
    from sae_jax.storage.provenance import LOG_FILE, PROVENANCE_FILE
    from sae_jax.storage.record import CONFIG_FILE
    from sae_jax.storage.results import PARAMS_FILE, RESULTS_FILE

    return [folder / name for name in (CONFIG_FILE, PROVENANCE_FILE, LOG_FILE, RESULTS_FILE, PARAMS_FILE)]


def _tell(dataset: xr.Dataset, files: Sequence[Path], log: RunLog) -> None:
    """Print the table of a run and its files, in its log too."""
    from sae_jax.analysis.report import print_table
    from sae_jax.sweeps.consoles import plain_console

    print_table(plain_console(), dataset)
    log.table(dataset)
    for line in ("files:", *(f"  {path}" for path in files)):
        print(line)
        with contextlib.suppress(OSError):
            log.line(line)

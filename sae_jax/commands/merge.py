"""Put finished runs that differ in some settings or seeds together as one.

    python -m experiments.merge runs/a runs/b --name both

Lanes that several of them hold alike are taken once; what none of them holds is missing in the new run's grid. The runs
stay as they are.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from sae_jax.commands.environment import call, draw_usual
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import TEXT, UserError, setting


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
        from rich.console import Console

        from sae_jax.analysis.report import print_table
        from sae_jax.analysis.summary import write_summary
        from sae_jax.storage import record as records
        from sae_jax.storage import results
        from sae_jax.storage import run_folder as runs
        from sae_jax.sweeps.merge import merge
        from sae_jax.sweeps.reading import grid_of

        end_in_order()
        folder = Path(where.runs) / where.name
        runs.check_claimable(folder)
        dataset = merge(*(results.load(name) for name in names))
        grid = grid_of(dataset)
        command = f"{call('merge')} {shlex.join(argv)}"
        content, lines = records.merged_content(
            command, grid.as_json(), list(grid.dims), [Path(name) for name in names]
        )
        for line in lines:
            print(line)
        with runs.claim(folder, content):
            results.save(dataset, folder)
            summary = write_summary(dataset, folder)
            pictures = draw_usual(dataset, folder / "figures")
        print_table(Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120), dataset)
        files = [folder / name for name in (records.CONFIG_FILE, results.RESULTS_FILE, results.PARAMS_FILE)]
        print("files:", *(f"  {path}" for path in [*files, summary, *pictures]), sep="\n")

"""List the runs in a folder, show one of them, or remove those that were abandoned before they had results.

python -m experiments.runs
python -m experiments.runs NAME
python -m experiments.runs --clear
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from sae_jax.commands.environment import call
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.settings import TEXT, TRUE_OR_FALSE, UserError, nearest, setting


@dataclasses.dataclass(frozen=True)
class Which:
    """Which runs, and what is to be done with them."""

    runs: str = setting("runs", TEXT, "folder of all runs")
    clear: bool = setting(False, TRUE_OR_FALSE, "remove unfinished runs without results that no process works on")
    yes: bool = setting(False, TRUE_OR_FALSE, "remove them without asking")


def main(argv: list[str]) -> None:
    """Parse, and list, show or clear."""
    with one_line_errors():
        load_plugins(argv)
        run = option("run", ("",), "a run to show: its name, or its folder", "NAME", False, positional=True)
        groups = {"runs": [run, *options_of(Which)]}
        words = read(argv, call("runs"), (__doc__ or "").partition("\n")[0], groups)
        which, name = checked_settings(Which, words), " ".join(words["run"])
        # Help need not wait for all that reads runs.
        from sae_jax.commands.run_report import print_list, print_run
        from sae_jax.storage.atomic import check_reachable
        from sae_jax.storage.record import CONFIG_FILE
        from sae_jax.storage.run_list import run_at, runs_in

        if which.clear:
            if name:
                raise UserError(f"clear takes no name: got {name}; leave it out")
            _clear(Path(which.runs), which.yes)
        elif which.yes:
            raise UserError("yes must stand beside clear: got no --clear; add it")
        elif name:
            folders = [Path(which.runs) / name, Path(name)]
            chosen = next((run for run in map(run_at, folders) if run), None)
            if not chosen:
                for folder in folders:
                    check_reachable(folder / CONFIG_FILE, "a run")
                others = [each.folder for each in runs_in(Path(which.runs))]
                raise UserError(f"a run's folder must hold a run: got {name}; {nearest(folders[0], others)}")
            print_run(chosen, call)
        else:
            print_list(runs_in(Path(which.runs)), which.runs)


def _clear(folder: Path, yes: bool) -> None:
    """Remove abandoned runs, after asking at a terminal.

    Raises:
        UserError: nobody can be asked.
    """
    from sae_jax.commands.run_report import print_list
    from sae_jax.storage.run_list import remove_unfinished, runs_in
    from sae_jax.sweeps.footprint import megabytes
    from sae_jax.sweeps.plan import count
    from sae_jax.sweeps.streams import is_terminal

    abandoned = [run for run in runs_in(folder) if run.abandoned]
    if not abandoned:
        print(f"no abandoned run in {folder}")
        return
    what = f"{count(len(abandoned), 'unfinished run')}, {megabytes(sum(run.size for run in abandoned))}"
    if not yes:
        if not is_terminal(sys.stdin):
            raise UserError(f"clear asks at a terminal before it removes {what}: got none; add --yes")
        print_list(abandoned, str(folder))
        try:
            answer = input(f"remove {what}? [y/N] ")
        except EOFError:  # Ctrl-D, which ends no line.
            answer = ""
            print()
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return
    for run in abandoned:
        print(f"removed {run.folder}" if remove_unfinished(run.folder) else f"in use by now: {run.folder}")

"""Write a page that shows finished runs in a browser.

    python -m experiments.report runs/digits
    python -m experiments.report runs/relu runs/topk --out both.html

The page holds the grid as heatmaps, every cell's curves and units, a browser of units, the frontier, and how each run
was made; several runs stand side by side. It goes into RUN/report.html, of several runs into the folder of the first.
A sweep writes it by itself. docs/page.md says more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_jax.commands.environment import call, check_file, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import OUT, Moved, load_run, moved, one
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import UserError
from sae_jax.storage.atomic import RUN_FOLDER, check_regular, unwritable

if TYPE_CHECKING:
    import xarray as xr

    from sae_jax.data import Data

MOST_RUNS = 8


def main(argv: list[str]) -> None:
    """Read runs, write their page, tell where it is."""
    with one_line_errors():
        load_plugins(argv)
        positional = option(
            "run", ("",), "folders of finished runs, or their names in runs", "RUN", True, positional=True
        )
        groups = {"report": [positional, *options_of(Moved), OUT]}
        words = read(argv, call("report"), (__doc__ or "").partition("\n")[0], groups)
        names, where = [name for name in words["run"] if name], checked_settings(Moved, words)
        if not 1 <= len(names) <= MOST_RUNS:
            raise UserError(
                f"report needs the folders of 1 to {MOST_RUNS} finished runs, before its flags: got "
                f"{len(names) or 'none'}; see runs/"
            )
        given = "--dataset" if where.dataset else "--targets" if where.targets else ""
        if given and len(names) > 1:
            raise UserError(f"{given} says where the samples of one run lie: got {len(names)} runs; put them back")
        # Help need not wait for all that reads and draws.
        import sae_jax
        from sae_jax.pages.page import PAGE_FILE, Shown, write_page
        from sae_jax.storage.run_list import folder_of

        folders = [folder_of(name) for name in names]
        resolved = [Path(os.path.realpath(folder)) for folder in folders]
        for name, path in zip(names, resolved, strict=True):
            if resolved.count(path) > 1:
                raise UserError(f"report must name a run once: got {name} twice; leave one")
        out = Path(one(words, "out") or folders[0] / PAGE_FILE)
        flag = "--out" if one(words, "out") else RUN_FOLDER
        loaded = [moved(load_run(folder), where) for folder in folders]
        check_file(out, flag)
        set_up()
        end_in_order()
        shown = [
            Shown(path.name, dataset, folder, samples_needed=bool(given))
            for dataset, folder, path in zip(loaded, folders, resolved, strict=True)
        ]
        write_page(shown, out, sae_jax.__version__, flag, "choose another --out")
        print(out)


def check_run_page(folder: Path) -> None:
    """Refuse a run's folder in which the page could not be written, before anything is trained.

    Raises:
        UserError: what is named as the page is no file.
    """
    from sae_jax.pages.page import PAGE_FILE  # Help need not wait for it.

    path = folder / PAGE_FILE
    try:
        check_regular(path)
    except OSError as error:
        raise unwritable(path, error, "the run's page", "rename what is there, or pass --report False") from None


def write_run_page(dataset: xr.Dataset, folder: Path, samples: Sequence[Data]) -> Path:
    """Write the page of a run that has just been trained into its folder; the path.

    Args:
        dataset: of the run.
        folder: of the run.
        samples: of each of its programs; where they are several sets, they are loaded again.

    Raises:
        UserError: the folder cannot be written to.
    """
    import sae_jax
    from sae_jax.pages.page import PAGE_FILE, Shown, write_page  # Training need not wait for it.

    data = samples[0] if all(one is samples[0] for one in samples) else None
    path = folder / PAGE_FILE
    write_page([Shown(folder.name, dataset, folder, data)], path, sae_jax.__version__, RUN_FOLDER, "")
    return path

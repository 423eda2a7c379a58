"""Print the table of a finished run as Markdown, CSV or LaTeX.

    python -m experiments.table runs/digits
    python -m experiments.table runs/digits --format latex --by rho beta --measure eval_l0 eval_explained_variance
    python -m experiments.table runs/digits --format csv markdown --out digits.csv

A row is a cell: a combination of the swept settings. With --by a row is a combination of those axes alone, and every
seed's number is its mean over the others. Entries are mean +- sample standard deviation over seeds; lanes that diverged
are left out. --out writes a file; of several formats one each, which differ in how their names end.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from sae_jax.analysis.options import TABLE_FORMATS
from sae_jax.commands.environment import call, check_file, check_writable, write_whole
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import MEASURE, OUT, RUN, SELECT, load_run, one, run_folder, several
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import one_of, setting
from sae_jax.storage.atomic import unwritable


@dataclasses.dataclass(frozen=True)
class Form:
    """What the table looks like."""

    format: tuple[str, ...] = setting(("markdown",), one_of(TABLE_FORMATS), "formats to write it in")


def main(argv: list[str]) -> None:
    """Read a run, and print or write its table."""
    with one_line_errors():
        load_plugins(argv)
        by = option("by", ("",), "axes that make rows; empty is all", "AXIS", True)
        groups = {"table": [RUN, *options_of(Form), by, MEASURE, SELECT, OUT]}
        words = read(argv, call("table"), (__doc__ or "").partition("\n")[0], groups)
        folder, form, out = run_folder(words, "table"), checked_settings(Form, words), one(words, "out")
        axes, measures, places = (several(words, name) for name in ("by", "measure", "select"))
        from sae_jax.analysis.cells import with_presence  # Help need not wait for it.
        from sae_jax.analysis.formats import FORMATS
        from sae_jax.analysis.select import selected
        from sae_jax.analysis.summary import cell_table

        formats = list(dict.fromkeys(form.format))
        paths = _paths(out, [FORMATS[name][0] for name in formats]) if out else []
        end_in_order()
        dataset = selected(with_presence(load_run(folder)), places)
        table = cell_table(dataset, axes or None, measures)
        texts = {name: FORMATS[name][1](table) for name in formats}
        if not out:
            print("\n".join(texts.values()), end="")
            return
        for path, text in zip(paths, texts.values(), strict=True):
            write_whole(path, text.encode(), "--out")
            print(path)


def _paths(out: str, suffixes: Sequence[str]) -> list[Path]:
    """The files to be written, one of each suffix where there are several.

    Raises:
        UserError: one of them cannot be written.
    """
    named = Path(out)
    if named.name in ("", "..") or out.endswith("/"):
        raise unwritable(named, "it is a folder", "--out", "choose another")
    paths = [named] if len(suffixes) == 1 else [named.with_suffix(suffix) for suffix in suffixes]
    for path in paths:
        if os.path.exists(path.parent):
            check_file(path, "--out")
        else:  # It is made when the file is written.
            check_writable(path.parent, "--out")
    return paths

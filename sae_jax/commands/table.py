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
from pathlib import Path

from sae_jax.analysis.options import TABLE_FORMATS
from sae_jax.commands.environment import call, write_whole
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import MEASURE, OUT, RUN, SELECT, load_run, one, run_folder, several
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import one_of, setting


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

        end_in_order()
        dataset = selected(with_presence(load_run(folder)), places)
        table = cell_table(dataset, axes or None, measures)
        formats = list(dict.fromkeys(form.format))
        texts = {name: FORMATS[name][1](table) for name in formats}
        if not out:
            print("\n".join(texts.values()), end="")
            return
        for name, text in texts.items():
            path = Path(out) if len(formats) == 1 else Path(out).with_suffix(FORMATS[name][0])
            write_whole(path, text.encode(), "--out")
            print(path)

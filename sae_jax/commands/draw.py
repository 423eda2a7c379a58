"""Draw figures of a finished run again, as images or vectors, for a screen or a paper.

    python -m experiments.draw runs/digits --figure frontier heatmaps --format pdf --style paper
    python -m experiments.draw runs/digits --figure curves --measure loss_kl --select rho=.05 seed=0
    python -m experiments.draw runs/digits --figure frontier --measure eval_mean_activation eval_reconstruction
    python -m experiments.draw runs/frontier --figure frontier --beside runs/imported

They go into RUN/drawn, or the folder of --out. A figure shows an axis each by colour, line style and panels, and says
what it leaves out; --select chooses. --measure chooses curves, heatmaps, and what the frontier shows against L0, or
against the mean activation where that is among them. --beside puts other runs of any model, measured on the same
samples, into the frontier as grey points. Fonts are embedded in PDF, and text is outlines in SVG. In the style paper
figures are one column (3.35 inches) or one page (6.9 inches) wide, and what they show is printed beside their files,
for the caption, rather than drawn.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from sae_jax.analysis.options import FIGURE_FORMATS, FIGURES, STYLES
from sae_jax.commands.environment import call, check_writable
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import MEASURE, OUT, RUN, SELECT, load_run, one, run_folder, several
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import UserError, one_of, setting, unknown


@dataclasses.dataclass(frozen=True)
class Look:
    """What figures look like."""

    format: tuple[str, ...] = setting(("png",), one_of(FIGURE_FORMATS), "formats to write every figure in")
    style: str = setting("screen", one_of(STYLES), "how figures look")


def main(argv: list[str]) -> None:
    """Read a run, draw, save, tell."""
    with one_line_errors():
        load_plugins(argv)
        figure = option("figure", ("",), f"of {', '.join(FIGURES)}; empty is the usual ones", "NAME", True)
        others = option("beside", ("",), "finished runs on the same samples, as points of the frontier", "RUN", True)
        groups = {"figures": [RUN, figure, *options_of(Look), MEASURE, SELECT, others, OUT]}
        words = read(argv, call("draw"), (__doc__ or "").partition("\n")[0], groups)
        folder, look = run_folder(words, "draw"), checked_settings(Look, words)
        names, measures, places, besides = (several(words, name) for name in ("figure", "measure", "select", "beside"))
        for name in names:
            if name not in FIGURES:
                raise unknown("figure", name, FIGURES)
        out = Path(one(words, "out") or folder / "drawn")
        # Help need not wait for all that draws.
        from sae_jax.analysis import figures
        from sae_jax.analysis.beside import beside
        from sae_jax.analysis.cells import with_presence
        from sae_jax.analysis.select import selected
        from sae_jax.analysis.style import STYLES as LOOKS
        from sae_jax.analysis.style import caption_of
        from sae_jax.storage.results import save_figure
        from sae_jax.storage.run_list import folder_of

        dataset = selected(with_presence(load_run(folder)), places)
        names = tuple(dict.fromkeys(names or figures.usual_figures(dataset)))
        figures.check_measures(dataset, names, measures)
        folders = {name: folder_of(name) for name in besides}
        resolved = [os.path.realpath(folders[name]) for name in besides]
        for name, path in zip(besides, resolved, strict=True):
            if resolved.count(path) > 1:
                raise UserError(f"--beside must name a run once: got {name} twice; leave one")
        runs = beside(dataset, {name: load_run(path) for name, path in folders.items()})
        if runs and not any(figures.FIGURES[name].beside for name in names):
            raise UserError(f"--beside is shown by frontier: got figure {', '.join(names)}; add --figure frontier")
        for name in names:
            if lacking := figures.FIGURES[name].lacks(dataset):
                raise UserError(f"figure {name} needs {lacking}: the run holds none; leave it out")
        check_writable(out, "--out")
        end_in_order()
        for name, drawn in figures.drawn(dataset, names, LOOKS[look.style], measures, runs):
            for kind in dict.fromkeys(look.format):
                save_figure(drawn, out / f"{name}.{kind}")
                print(out / f"{name}.{kind}")
            if not LOOKS[look.style].captions:
                print(f"  caption: {caption_of(drawn)}")

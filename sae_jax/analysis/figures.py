"""The figures of a sweep by name: which of them a Dataset has what it takes for, and their files. No training here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.beside import Beside
from sae_jax.analysis.cells import MEAN_ACTIVATION, cell_count, lane_scalars, with_presence, without_constants
from sae_jax.analysis.cosines import cosines
from sae_jax.analysis.filters import filters, filters_best, has_images
from sae_jax.analysis.heatmaps import heatmap_measures, heatmaps
from sae_jax.analysis.lines import (
    CONSISTENCY,
    consistency,
    curves,
    frontier,
    frontier_measures,
    mean_activation,
    shown_curves,
)
from sae_jax.analysis.style import SCREEN, Style, drawing
from sae_jax.analysis.unit_page import has_units, units
from sae_jax.settings import UserError, check_type, unknown
from sae_jax.storage.atomic import as_path
from sae_jax.storage.results import save_figure
from sae_jax.training.lane import ROWS


class Drawing(NamedTuple):
    """A figure: its function of a Dataset, a style and measures, and of other runs where they may stand beside it.

    Attributes:
        draw: the function.
        lacks: what a Dataset lacks for it, in words.
        usual: whether it is drawn where no figure is named.
        beside: whether it takes other runs.
        with_samples: whether it looks at the run's samples, which its settings name.
    """

    draw: Callable[..., Figure]
    lacks: Callable[[xr.Dataset], str]
    usual: Callable[[xr.Dataset], bool] = lambda dataset: True
    beside: bool = False
    with_samples: bool = False


def _needs(words: str, holds: Callable[[xr.Dataset], bool]) -> Callable[[xr.Dataset], str]:
    return lambda dataset: "" if holds(dataset) else words


def _several(dataset: xr.Dataset) -> bool:
    return cell_count(dataset) > 1


FIGURES = {
    "curves": Drawing(curves, _needs("curves of the training loss", lambda dataset: bool(shown_curves(dataset)))),
    "filters_best": Drawing(filters_best, _needs("decoder rows that are images", has_images)),
    "filters": Drawing(filters, _needs("decoder rows that are images", has_images)),
    "cosines": Drawing(
        cosines, _needs("decoder rows", lambda dataset: ROWS in dataset), lambda dataset: not has_images(dataset)
    ),
    "consistency": Drawing(
        consistency, _needs("decoder rows compared between seeds", lambda dataset: CONSISTENCY in dataset)
    ),
    "mean_activation": Drawing(mean_activation, _needs("mean activations", lambda dataset: MEAN_ACTIVATION in dataset)),
    "heatmaps": Drawing(
        heatmaps, _needs("measures of lanes", lambda dataset: bool(heatmap_measures(dataset))), _several
    ),
    "frontier": Drawing(
        frontier,
        _needs("a measure of sparsity beside one of quality", lambda dataset: all(frontier_measures(dataset))),
        _several,
        beside=True,
    ),
    "units": Drawing(
        units,
        _needs("samples of units, which the command units keeps", has_units),
        lambda dataset: False,
        with_samples=True,
    ),
}


def usual_figures(dataset: xr.Dataset) -> list[str]:
    """The figures that a sweep draws by itself: those that it holds the variables for and that say something of it.

    Raises:
        UserError: the Dataset is none.
    """
    _check_dataset(dataset)
    return [name for name, figure in FIGURES.items() if not figure.lacks(dataset) and figure.usual(dataset)]


def _check_dataset(dataset: Any) -> None:
    check_type("dataset", dataset, xr.Dataset, "a Dataset of results", "use what sae_jax.sweep returned")


def _check_names(figures: Any, measures: Any) -> None:
    for several, values in (("names", figures), ("measures", measures)):
        check_type(several, values, (list, tuple), "a list of names", f"known figures: {', '.join(FIGURES)}")
    for name in figures:
        if name not in tuple(FIGURES):
            raise unknown("figure", name, FIGURES)


def check_measures(dataset: xr.Dataset, names: Sequence[str], measures: Sequence[str]) -> None:
    """Refuse measures that none of some figures could show.

    Raises:
        UserError: a measure is none of the Dataset's, or none of the figures shows it.
    """
    _check_dataset(dataset)
    _check_names(names, measures)
    scalars, terms = list(lane_scalars(dataset)), shown_curves(dataset)
    for measure in measures:
        if measure not in [*scalars, *terms]:
            raise unknown("measure", measure, [*scalars, *terms])
        showing = ("curves",) if measure in terms else ("heatmaps", "frontier")
        if not set(showing) & set(names):
            raise UserError(
                f"measure {measure} is shown by {' and '.join(showing)}: got figure {', '.join(names)}; "
                f"add --figure {showing[0]}"
            )


def drawn(
    dataset: xr.Dataset,
    names: Sequence[str],
    style: Style = SCREEN,
    measures: Sequence[str] = (),
    runs: Sequence[Beside] = (),
) -> Iterator[tuple[str, Figure]]:
    """Figures one after another, by name; each is closed before the next is drawn.

    Args:
        dataset: of a sweep; it has what the figures need.
        names: of FIGURES.
        style: how they look.
        measures: variables that figures of measures and curves show, where they can; none is what each shows by itself.
        runs: others, as points beside the dataset's in the figures that take them.

    Raises:
        UserError: an argument is not what it is to be.
    """
    _check_dataset(dataset)
    _check_names(names, measures)
    check_type("style", style, Style, "a Style", "use SCREEN or PAPER of sae_jax.analysis.style")
    whole = with_presence(dataset)
    shown = without_constants(whole)
    with drawing(style), np.errstate(invalid="ignore"):
        for name in names:
            dataset = whole if FIGURES[name].with_samples else shown
            others = (runs,) if FIGURES[name].beside else ()
            figure = FIGURES[name].draw(dataset, style, measures, *others)
            yield name, figure
            plt.close(figure)


def save_all(dataset: xr.Dataset, folder: str | Path) -> list[Path]:
    """Draw a sweep's usual figures into a folder; their paths.

    Raises:
        UserError: an argument is not what it is to be, or the folder cannot be written to.
    """
    folder = as_path("folder", folder, "the path of a folder", "use runs/NAME/figures")
    _check_dataset(dataset)
    paths = []
    for name, figure in drawn(dataset, usual_figures(with_presence(dataset))):
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths

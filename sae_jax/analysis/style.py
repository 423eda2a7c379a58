"""How figures look: on a screen or in a paper's column, always by the library's own defaults, not the user's."""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.cells import name_of, selected_of

# Width of a legend in inches.
LEGEND = 1.9
COMMON: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "image.cmap": "viridis",
    # Values of settings, names of samples and of runs are shown as they are: two $ in a path are no formula.
    "text.parse_math": False,
    # TrueType in PDF, which publishers ask for; outlines in SVG, which look alike wherever no such font is installed.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "sae_jax",
}


class Style(NamedTuple):
    """The look of figures.

    Attributes:
        name: what the command line calls it.
        settings: of matplotlib.
        font: size of text in points.
        captions: whether a figure says by itself what a paper's caption would.
        widths: inches of a figure: of one column, and of a page; None is as wide as its panels are.
    """

    name: str
    settings: dict[Any, Any]
    font: float
    captions: bool
    widths: tuple[float, float] | None = None


SCREEN = Style(
    "screen", COMMON | {"figure.dpi": 120, "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8}, 9, True
)
PAPER = Style(
    "paper",
    COMMON
    | {"figure.dpi": 300, "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6}
    | {"xtick.labelsize": 6, "ytick.labelsize": 6, "axes.linewidth": 0.6, "lines.linewidth": 0.9},
    7,
    False,
    (3.35, 6.9),
)
STYLES = {style.name: style for style in (SCREEN, PAPER)}


@contextlib.contextmanager
def drawing(style: Style = SCREEN) -> Iterator[None]:
    """Draw, and save, in a style; whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.settings)
        yield


def panels_of(style: Style, rows: int, columns: int, size: tuple[float, float], beside: bool) -> tuple[Figure, Any]:
    """A figure of rows and columns of panels: it, and the panels, [rows, columns].

    Args:
        style: by which a paper's figure is as wide as a column, or as a page where there are more than two panels.
        rows, columns: of panels.
        size: width and height of a panel in inches, on a screen.
        beside: whether there is a legend, which a screen has beside the panels and a paper above them.
    """
    width, height = size
    if style.widths:
        total = style.widths[columns > 2]
        figsize = (total, rows * min(max(total / columns * height / width, 1.3), 2.2) + 0.5 * beside + 0.1)
    else:
        figsize = (width * columns + LEGEND * beside, height * rows + 0.4)
    return plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)


def balanced(count: int, most: int) -> int:
    """Columns, at most so many, of panels in rows as even as can be."""
    return -(-count // -(-count // most))


def panel_width(figure: Figure, style: Style, columns: int, beside: bool) -> float:
    """Inches that the text above a panel has."""
    return (figure.get_figwidth() - (LEGEND if beside and not style.widths else 0)) / columns - 0.25


def panel_height(figure: Figure, style: Style, rows: int) -> float:
    """Inches that the text beside a panel has."""
    return (figure.get_figheight() - (1.0 if style.widths else 0.7)) / rows - 0.3


def say(figure: Figure, style: Style, caption: str, dataset: xr.Dataset) -> None:
    """Put a caption above a figure, with the settings that were selected from those that the run swept.

    In a paper it stands below, where the paper has it, so it is only remembered.
    """
    fixed = name_of(selected_of(dataset))
    caption += f"; {fixed} alone" if fixed else ""
    figure.set_label(caption)
    if style.captions:
        figure.suptitle(wrapped(caption, figure.get_figwidth(), style.font + 1), fontsize=style.font + 1)


def caption_of(figure: Figure) -> str:
    """What a figure shows, in a sentence."""
    return str(figure.get_label())


def wrapped(text: str, width: float, font: float, most: int = 4) -> str:
    """Text in lines of at most so many inches; most letters are half as wide as the font is high."""
    letters = max(int(width * 72 / (0.6 * font)), 12)
    fill = functools.partial(textwrap.fill, width=letters, max_lines=most, placeholder=" ...", break_on_hyphens=False)
    return "\n".join(map(fill, text.split("\n")))


def label_of(variable: xr.DataArray) -> str:
    """A variable's own label, with its units where it has any, without what a caption says of all of them."""
    label = str(variable.attrs.get("long_name", variable.name)).partition(";")[0].replace(" on held-out data", "")
    units = str(variable.attrs.get("units", "1"))
    return label if units in ("1", "") else f"{label} [{units}]"


def axis_label(variable: xr.DataArray) -> str:
    """A setting's name and what it means."""
    label = label_of(variable)
    return str(variable.name) if label == str(variable.name) else f"{variable.name}: {label}"

"""Which axis of a sweep a figure shows by what: one visual channel for each, and a plain word of what is left out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_jax.analysis.cells import DEVIATION, by_cell, cell_axes, evenly, is_numeric, short
from sae_jax.analysis.style import Style

# Hues that the colour-blind tell apart, from dark to light (Okabe and Ito 2008, with wine for yellow), and a grey.
PALETTE = ("#000000", "#882255", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#AAAAAA")
HUES = len(PALETTE) - 1
# Each is told from the others without colour.
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
MOST_COLOURS, MOST_FACETS = len(PALETTE), 6
COLOUR, STYLE, COLUMN, ROW = "colour", "style", "column", "row"


class Plan(NamedTuple):
    """What a figure shows of a Dataset.

    Attributes:
        dataset: of the axes that have a channel, and of them only the values that are shown.
        axes: the axis of each channel.
        left_out: what is not shown, in words.
    """

    dataset: xr.Dataset
    axes: dict[str, str]
    left_out: list[str]

    @property
    def facets(self) -> list[dict[str, Any]]:
        """The points of the panels, row by row."""
        names = [self.axes[channel] for channel in (ROW, COLUMN) if channel in self.axes]
        values = [self.dataset[name].values.tolist() for name in names]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]

    def cells(self, facet: Mapping[str, Any]) -> list[tuple[dict[str, Any], xr.Dataset]]:
        """The cells of one panel."""
        return by_cell(self.dataset.sel(facet))

    def colour(self, point: Mapping[str, Any]) -> Any:
        """The colour of a cell: its lightness alone tells it, too."""
        axis = self.axes.get(COLOUR)
        return _colour(*self._place(COLOUR, point), axis is None or is_numeric(self.dataset[axis]))

    def line(self, point: Mapping[str, Any]) -> dict[str, str]:
        """The line style and marker of a cell."""
        place, _ = self._place(STYLE, point)
        return {"linestyle": LINE_STYLES[place], "marker": MARKERS[place]}

    def _place(self, channel: str, point: Mapping[str, Any]) -> tuple[int, int]:
        axis = self.axes.get(channel)
        if axis is None:
            return 0, 1
        values = self.dataset[axis].values.tolist()
        return values.index(point[axis]), len(values)


def plan(dataset: xr.Dataset, channels: Mapping[str, int], first: str | None = None) -> Plan:
    """Give the axes of a Dataset their channels, in order; of further axes the first value alone is shown.

    Args:
        dataset: of a sweep.
        channels: how many values each can show, in the order in which they are given away.
        first: the axis that the first channel goes to; None is the first axis.
    """
    axes = sorted(cell_axes(dataset), key=lambda axis: axis != first)
    given = dict(zip(channels, axes, strict=False))
    if ROW in given:
        columns = min(dataset.sizes[given[COLUMN]], MOST_FACETS // 2)
        channels = {**channels, COLUMN: columns, ROW: MOST_FACETS // columns}
    left_out = []
    for channel, axis in given.items():
        total = dataset.sizes[axis]
        if total > channels[channel]:
            left_out.append(f"{axis}: {channels[channel]} of {total} values")
            dataset = dataset.isel({axis: evenly(total, channels[channel])})
    for axis in axes[len(given) :]:
        left_out.append(f"{axis}={short(dataset[axis].values[0])} alone of {dataset.sizes[axis]} values")
        dataset = dataset.isel({axis: 0})
    return Plan(dataset, given, left_out)


def facet_name(facet: Mapping[str, Any]) -> str:
    """What a panel shows, in a line."""
    return ", ".join(f"{name}={short(value)}" for name, value in facet.items())


def left_out_of(shown: Plan) -> str:
    """The last words of a caption: what is left out."""
    return f"; shown in part: {', '.join(shown.left_out)}" if shown.left_out else ""


def legend(figure: Figure, style: Style, shown: Plan, more: Sequence[tuple[Any, str]], markers: bool = False) -> None:
    """A legend beside the panels: a line for every value of the axes that have a colour or a line style.

    Args:
        figure: of panels.
        style: its look.
        shown: the axes.
        more: further entries, such as what a band is: what to draw, and a label.
        markers: whether points carry the marker of their line style.
    """
    unmarked = {} if markers else {"marker": ""}
    entries: list[tuple[Any, str]] = []
    for channel in (COLOUR, STYLE):
        if channel in shown.axes:
            axis = shown.axes[channel]
            entries.append((Line2D([], [], linestyle="none"), axis))
            for value in shown.dataset[axis].values.tolist():
                point = {axis: value}
                look = {"color": "black"} | shown.line(point) if channel == STYLE else {"color": shown.colour(point)}
                entries.append((Line2D([], [], markersize=4, **look | unmarked), short(value)))
    handles, labels = zip(*entries, *more, strict=True)
    where = (
        {"loc": "outside upper center", "ncols": min(len(labels), 4)}
        if style.widths
        else {"loc": "outside right center"}
    )
    figure.legend(handles, labels, **where)


def seeds_of(dataset: xr.Dataset, shown: str = f"mean and {DEVIATION}") -> str:
    """What is averaged, for a caption: over how many seeds, and which lanes are left out."""
    seeds = int(dataset.sizes["seed"])
    words = f"{shown} over {seeds} seeds" if seeds > 1 else "one seed"
    if "diverged_at" in dataset:
        counts = {"diverged": dataset["diverged_at"] >= 0, "are absent": dataset["diverged_at"].isnull()}
        missing = [f"{int(lanes.sum())} lanes that {what}" for what, lanes in counts.items() if lanes.any()]
        words += f", without {' and '.join(missing)}" if missing else ""
    return words


def black_line(**look: Any) -> Line2D:
    """A legend's line that stands for no cell."""
    return Line2D([], [], **{"color": "black", **look})


def spare(panels: Sequence[Axes]) -> None:
    """Empty the places of a figure that have no panel."""
    for panel in panels:
        panel.axis("off")


def _colour(place: int, total: int, ordered: bool) -> Any:
    """Numbers: of viridis without its lightest end, which paper does not show; names: hues of PALETTE, evenly apart."""
    share = 0.35 if total == 1 else place / (total - 1)
    return plt.get_cmap("viridis")(0.85 * share) if ordered else PALETTE[round(share * (max(total, HUES) - 1))]

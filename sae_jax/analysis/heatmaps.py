"""Heatmaps: held-out measures over two swept settings, panels over two more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_jax.analysis.cells import MEAN_ACTIVATION, lane_measures, lane_scalars, over_seeds, short
from sae_jax.analysis.channels import COLUMN, MOST_FACETS, ROW, facet_name, left_out_of, plan, seeds_of, spare
from sae_jax.analysis.style import (
    Style,
    axis_label,
    balanced,
    label_of,
    panel_height,
    panel_width,
    panels_of,
    say,
    wrapped,
)
from sae_jax.sweeps.lane_warnings import target

DOWN, ACROSS = "down", "across"
# Rows and columns that are given room of their own, and that are named.
MOST_ROOM, MOST_TICKS, MOST_VALUES = 24, 8, 60


def heatmap_measures(dataset: xr.Dataset, measures: Sequence[str] = ()) -> dict[str, xr.DataArray]:
    """The chosen measures; else the held-out ones of whole lanes, the mean activation over its target rho."""
    scalars = lane_scalars(dataset)
    chosen = {name: scalars[name] for name in measures if name in scalars}
    if chosen:
        return chosen
    shown, rho = lane_measures(dataset), target(dataset)
    if MEAN_ACTIVATION in shown and rho is not None:
        ratio = (shown[MEAN_ACTIVATION] / rho).transpose(*shown[MEAN_ACTIVATION].dims)
        shown[MEAN_ACTIVATION] = ratio.assign_attrs(long_name="mean activation / rho", units="1")
    return shown


def heatmaps(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Means over seeds over the first two swept settings; panels for a third and a fourth."""
    values = xr.Dataset(heatmap_measures(dataset, measures))
    names = [str(name) for name in values.data_vars]
    everything = max(values.sizes.values())
    shown = plan(values, {DOWN: everything, ACROSS: everything, COLUMN: MOST_FACETS, ROW: MOST_FACETS})
    facets = shown.facets
    axes = [shown.axes[channel] for channel in (DOWN, ACROSS) if channel in shown.axes]
    shape = tuple(values.sizes[axis] for axis in axes) + (1,) * (2 - len(axes))
    per_row = len(facets) if len(facets) > 1 else balanced(len(names), 3 if style.widths is None else 2)
    rows = -(-len(names) * len(facets) // per_row)
    size = (max(1.3 + 0.5 * min(shape[1], MOST_ROOM), 2.5), max(1.1 + 0.3 * min(shape[0], MOST_ROOM), 1.9))
    figure, panels = panels_of(style, rows, per_row, size, beside=False)
    spare(panels.flat[len(names) * len(facets) :])
    places = iter(panels.flat)
    for name in names:
        means = [over_seeds(shown.dataset[name].sel(facet)).mean.values.reshape(shape) for facet in facets]
        finite = np.concatenate([part[np.isfinite(part)] for part in means])
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        high = high if high > low else low + 1
        drawn = []
        for facet, part in zip(facets, means, strict=True):
            panel: Axes = next(places)
            image = panel.imshow(part, aspect="auto", vmin=low, vmax=high)
            drawn.append(panel)
            _ticks(panel, dataset, axes)
            small = len(facets) > 3 or style.widths is not None
            if part.size <= (12 if small else MOST_VALUES):
                _write_values(panel, part, (low, high), style.font - 1)
            text = facet_name(facet) or label_of(values[name])
            panel.set_title(wrapped(text, panel_width(figure, style, per_row, False), style.font))
        bar = figure.colorbar(image, ax=drawn if len(facets) > 1 else drawn[0])
        if len(facets) > 1:
            bar.set_label(wrapped(label_of(values[name]), panel_height(figure, style, rows), style.font, 5))
    for axis, say_label in zip(axes, (figure.supylabel, figure.supxlabel), strict=False):
        length = figure.get_figheight() if say_label == figure.supylabel else figure.get_figwidth()
        say_label(wrapped(axis_label(dataset[axis]), length, style.font), fontsize=style.font)
    say(figure, style, f"held-out data, {seeds_of(dataset, 'mean')}{left_out_of(shown)}", dataset)
    return figure


def _ticks(panel: Axes, dataset: xr.Dataset, axes: Sequence[str]) -> None:
    panel.grid(False)
    panel.set(xticks=[], yticks=[])
    for axis, ticks in zip(axes, (panel.set_yticks, panel.set_xticks), strict=False):
        names = [short(value) for value in dataset[axis].values]
        every = -(-len(names) // MOST_TICKS)
        ticks(range(0, len(names), every), names[::every])


def _write_values(panel: Axes, values: np.ndarray, limits: tuple[float, float], font: float) -> None:
    largest = max(map(abs, limits))
    digits = ".2f" if 0.1 <= largest < 100 else ".2g"
    for (row, column), value in np.ndenumerate(values):
        text, dark = (format(value, digits), value > sum(limits) / 2) if np.isfinite(value) else ("none", True)
        panel.text(column, row, text, ha="center", va="center", color="black" if dark else "white", fontsize=font)

"""Figures of lines: training curves, mean activations, and quality against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from sae_jax.analysis.beside import Beside, draw_beside
from sae_jax.analysis.beside import entries as entries_beside
from sae_jax.analysis.cells import (
    DEAD,
    DEVIATION,
    EXPLAINED,
    L0,
    MEAN_ACTIVATION,
    cell_axes,
    counted,
    is_numeric,
    is_sparse,
    lane_scalars,
    over_seeds,
    short,
)
from sae_jax.analysis.channels import (
    COLOUR,
    COLUMN,
    LINE_STYLES,
    MOST_COLOURS,
    MOST_FACETS,
    ROW,
    STYLE,
    Plan,
    black_line,
    facet_name,
    left_out_of,
    legend,
    plan,
    seeds_of,
    spare,
)
from sae_jax.analysis.style import Style, balanced, label_of, panel_height, panel_width, panels_of, say, wrapped
from sae_jax.storage.description import names_of_kind
from sae_jax.sweeps.lane_warnings import target

ALONG = "along"
CONSISTENCY = "seed_consistency"
LINES = {COLOUR: MOST_COLOURS, STYLE: len(LINE_STYLES)}
FACETS = {COLUMN: MOST_FACETS, ROW: MOST_FACETS}
MOST_POINTS = 100
# A curve that falls or rises by more than this factor is drawn on a logarithmic axis.
LOGARITHMIC = 5.0
# Settings that a sweep of sparsity varies, the first that it does: lines of the frontier run along it.
SPARSITY_SETTINGS = ("target_l0", "rho", "k", "l1", "l0", "target_rate", "beta", "contractive")
SPARSITY_MEASURES = (L0, MEAN_ACTIVATION)
QUALITY_MEASURES = (EXPLAINED, "eval_reconstruction")
TRUTH_MEASURES = ("truth_mcc", "truth_f1")
# Of these more is better: no other point of a panel is both sparser and better than one on the Pareto front.
RISING = (EXPLAINED, *TRUTH_MEASURES)


def shown_curves(dataset: xr.Dataset, measures: Sequence[str] = ()) -> list[str]:
    """The curves of a Dataset, the total loss first, without those of terms that are off: 0 or NaN throughout."""
    names = [name for name in names_of_kind(dataset, "curve") if bool((dataset[name].fillna(0) != 0).any())]
    chosen = [name for name in names if name in measures]
    return chosen or sorted(names, key=lambda name: name != "loss")


def curves(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Training curves, mean and sample standard deviation over seeds: a panel for every term of the loss."""
    shown, caption = shown_curves(dataset, measures), "training, means since the step logged before"
    return _lines_along("step", plan(counted(dataset, shown), LINES | FACETS), dataset, shown, style, caption)


def consistency(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """How alike the seeds' dictionaries are while they are trained, mean and sample standard deviation over seeds."""
    channels = {COLOUR: MOST_COLOURS} | FACETS | {STYLE: len(LINE_STYLES)}
    shown, caption = (
        plan(counted(dataset, [CONSISTENCY]), channels),
        "how alike the seeds' dictionaries are in training",
    )
    return _lines_along("snapshot", shown, dataset, [CONSISTENCY], style, caption)


def _lines_along(
    dim: str, shown: Plan, dataset: xr.Dataset, names: Sequence[str], style: Style, caption: str
) -> Figure:
    """Variables along a dimension of steps: a panel for each, or a row of them where there are facets."""
    facets = shown.facets
    per_row = len(facets) if len(facets) > 1 else balanced(len(names), 3 if style.widths is None else 2)
    rows = -(-len(names) * len(facets) // per_row)
    figure, panels = panels_of(style, rows, per_row, (3.1, 2.7), beside=True)
    spare(panels.flat[len(names) * len(facets) :])
    width, high = panel_width(figure, style, per_row, beside=True), panel_height(figure, style, rows)
    for name, row in zip(names, _rows(panels, len(facets)), strict=False):
        values = []
        for panel, facet in zip(row, facets, strict=True):
            for point, cell in shown.cells(facet):
                curve = cell[name].dropna(dim, how="all")
                mean, deviation, _ = over_seeds(curve)
                look = {"color": shown.colour(point), "linestyle": shown.line(point)["linestyle"]}
                panel.plot(curve[dim], mean, lw=1.2, **look)
                below, above = mean - deviation, mean + deviation
                panel.fill_between(curve[dim], below, above, color=look["color"], alpha=0.15, lw=0)
                values.append(mean.values[np.isfinite(mean.values)])
            panel.set_title(wrapped(facet_name(facet) or _term(dataset[name]), width, style.font))
        units = str(dataset[name].attrs.get("units", "")).removeprefix("1")
        row[0].set_ylabel(
            wrapped(f"{_term(dataset[name])}{units and f' [{units}]'}" if len(facets) > 1 else units, high, style.font)
        )
        _scale(row, np.concatenate(values))
    figure.supxlabel(label_of(dataset[dim]), fontsize=style.font)
    say(figure, style, f"{caption}; {seeds_of(dataset)}{left_out_of(shown)}", dataset)
    legend(figure, style, shown, _spread_entries(dataset, shown, Patch(color="black", alpha=0.15, lw=0)))
    return figure


def mean_activation(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Mean activation of every unit on held-out data, sorted; a panel for each rho, where lanes have such a target."""
    rho = target(dataset)
    swept = rho is not None and "rho" in dataset.dims
    channels = {COLUMN: 5} | LINES | {ROW: MOST_FACETS // 3} if swept else LINES | FACETS
    shown = plan(counted(dataset, [MEAN_ACTIVATION]), channels, first="rho" if swept else None)
    facets = shown.facets
    most = 5 if style.widths is None else 3
    columns = shown.dataset.sizes[shown.axes[COLUMN]] if ROW in shown.axes else balanced(len(facets), most)
    figure, panels = panels_of(style, -(-len(facets) // columns), columns, (2.8, 2.7), beside=True)
    spare(panels.flat[len(facets) :])
    dashed = {"linewidth": 0.9, "linestyle": (0, (7, 2, 1, 2, 1, 2))}
    for panel, facet in zip(panels.flat, facets, strict=False):
        for point, cell in shown.cells(facet):
            units = np.sort(cell[MEAN_ACTIVATION].values.ravel())
            units = units[np.isfinite(units)]
            look = {"color": shown.colour(point), "linestyle": shown.line(point)["linestyle"]}
            panel.plot(np.linspace(0, 1, len(units)), units, lw=1.2, **look)
        for value in [] if rho is None else [facet["rho"]] if swept else np.unique(rho):
            panel.axhline(value, color="black", **dashed)
        panel.set_title(wrapped(facet_name(facet), panel_width(figure, style, columns, True), style.font))
    _alike(list(panels.flat[: len(facets)]))
    figure.supxlabel("units of all seeds, by rank from 0 to 1", fontsize=style.font)
    figure.supylabel(wrapped(label_of(dataset[MEAN_ACTIVATION]), 2.5, style.font), fontsize=style.font)
    say(figure, style, f"mean activation of every unit, seeds together{left_out_of(shown)}", dataset)
    lines = (
        [] if rho is None else [(black_line(**dashed), f"target rho{'' if rho.dims else f' = {short(rho.item())}'}")]
    )
    legend(figure, style, shown, lines or [(black_line(), "units, sorted")])
    return figure


def frontier_measures(dataset: xr.Dataset, measures: Sequence[str] = ()) -> tuple[str, list[str]]:
    """What stands for sparsity, and what is drawn against it; empty where a Dataset does not hold it.

    Of chosen measures, L0 or the mean activation stand for sparsity and all others are drawn against it. By themselves
    these are L0, or the mean activation where codes are dense; and the explained variance, or the error without it,
    with MCC and F1 where the true features are known, and the share of dead units.
    """
    scalars, sparse = lane_scalars(dataset), is_sparse(dataset)
    usual = [name for name in SPARSITY_MEASURES if name in scalars and (sparse or name != L0)]
    x = [name for name in measures if name in SPARSITY_MEASURES] or usual[:1]
    y = [name for name in measures if name in scalars and name not in x]
    quality = [name for name in QUALITY_MEASURES if name in scalars][:1]
    dead = [DEAD] if quality and sparse and DEAD in scalars else []
    truth = [name for name in TRUTH_MEASURES if quality and name in scalars]
    return (x[0] if x else ""), y or quality + truth + dead


def frontier(dataset: xr.Dataset, style: Style, measures: Sequence[str] = (), runs: Sequence[Beside] = ()) -> Figure:
    """Measures against sparsity: points are means over seeds, bars sample standard deviations; other runs in grey."""
    x_name, y_names = frontier_measures(dataset, measures)
    scalars = lane_scalars(dataset)
    values = xr.Dataset({name: scalars[name] for name in dict.fromkeys([x_name, *y_names])})
    numeric = [axis for axis in cell_axes(values) if is_numeric(values[axis])]
    along = next((axis for axis in SPARSITY_SETTINGS if axis in numeric), numeric[0] if numeric else None)
    channels = ({ALONG: MOST_POINTS} if along else {}) | LINES | FACETS
    shown = plan(values, channels, first=along)
    facets = shown.facets
    per_row = len(facets) if len(facets) > 1 else balanced(len(y_names), 3)
    rows = -(-len(y_names) * len(facets) // per_row)
    figure, panels = panels_of(style, rows, per_row, (3.3, 3.0), beside=True)
    spare(panels.flat[len(y_names) * len(facets) :])
    width, high = panel_width(figure, style, per_row, beside=True), panel_height(figure, style, rows)
    for name, row in zip(y_names, _rows(panels, len(facets)), strict=False):
        for panel, facet in zip(row, facets, strict=True):
            part = shown.dataset.sel(facet)
            if name in RISING:
                _ring_front(panel, part, x_name, name, style)
            lines = part.isel({along: 0}, drop=True) if along else part
            for point in plan(lines, LINES).cells({}):
                _line(panel, part.sel(point[0]), x_name, name, shown.colour(point[0]), shown.line(point[0]), style)
            draw_beside(panel, runs, x_name, name, style)
            panel.set_title(wrapped(facet_name(facet), width, style.font))
            panel.set_ylabel(wrapped(label_of(values[name]), high, style.font))
        _alike(row)
    label = f"{wrapped(label_of(values[x_name]), figure.get_figwidth() - 1.5, style.font)}"
    figure.supxlabel(f"{label}\n(sparser to the left)", fontsize=style.font)
    direction = f", along {along}: larger points, larger {along}" if along else ""
    say(figure, style, f"held-out data against sparsity{direction}; {seeds_of(dataset)}{left_out_of(shown)}", dataset)
    cross = black_line(marker="+", markersize=9, linestyle="none")
    entries = _spread_entries(dataset, shown, cross)
    if set(y_names) & set(RISING):
        ring = black_line(marker="o", markersize=9, linestyle="none", markerfacecolor="none", markeredgewidth=0.8)
        entries.append((ring, f"on the Pareto front{', grey points aside' if runs else ''}"))
    legend(figure, style, shown, [*entries, *entries_beside(runs, style)], markers=True)
    return figure


def _ring_front(panel: Axes, cells: xr.Dataset, x_name: str, y_name: str, style: Style) -> None:
    """Put a ring around the means than which no other is both sparser and better."""
    x, y = (over_seeds(cells[name]).mean.values.ravel() for name in (x_name, y_name))
    x, y = (values[np.isfinite(x) & np.isfinite(y)] for values in (x, y))
    best = [not np.any((x <= x[i]) & (y >= y[i]) & ((x < x[i]) | (y > y[i]))) for i in range(len(x))]
    ring: Any = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8, "zorder": 4}
    panel.scatter(x[best], y[best], 1.3 * style.font**2, **ring)


def _line(
    panel: Axes, cells: xr.Dataset, x_name: str, y_name: str, colour: Any, look: dict[str, str], style: Style
) -> None:
    """Means of cells along a sparsity setting, in its order, joined by a line; points grow along it."""
    x, y = over_seeds(cells[x_name]), over_seeds(cells[y_name])
    columns = [np.atleast_1d(part.values) for part in (x.mean, y.mean, x.deviation, y.deviation)]
    bars = {"fmt": "none", "ecolor": colour, "elinewidth": 0.8, "capsize": 1.5}
    panel.errorbar(columns[0], columns[1], columns[3], columns[2], **bars)
    sizes = np.linspace(0.1, 0.55, len(columns[0])) if len(columns[0]) > 1 else np.array([0.25])
    panel.plot(columns[0], columns[1], color=colour, linestyle=look["linestyle"], lw=1.1)
    panel.scatter(columns[0], columns[1], sizes * style.font**2, color=colour, marker=look["marker"], zorder=3)


def _term(curve: xr.DataArray) -> str:
    """What a curve is, without how its points are averaged, which a caption says."""
    return str(curve.attrs.get("long_name", curve.name)).partition(", mean since")[0]


def _rows(panels: np.ndarray, count: int) -> list[list[Axes]]:
    """The panels of a figure by what they show: so many for each."""
    return [list(panels.flat[start : start + count]) for start in range(0, panels.size, count)]


def _alike(panels: Sequence[Axes]) -> None:
    """One scale for panels that are compared, with its numbers on each that begins a row."""
    for panel in panels[1:]:
        panel.sharey(panels[0])
    if len(panels) > 1:
        panels[0].set_ylim(_union([panel.dataLim.intervaly for panel in panels], panels[0]))
    for panel in panels[1:]:
        if not cast(SubplotSpec, panel.get_subplotspec()).is_first_col():
            panel.tick_params(labelleft=False)
            panel.set_ylabel("")


def _union(intervals: list[Any], panel: Axes) -> tuple[float, float]:
    low, high = (function([interval[i] for interval in intervals]) for i, function in ((0, min), (1, max)))
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _scale(panels: Sequence[Axes], values: np.ndarray) -> None:
    """One scale for panels of a term, logarithmic where it spans much; its limits are those of the means."""
    _alike(panels)
    if not values.size:
        return
    low, high = values.min(), values.max()
    if low > 0 and high > LOGARITHMIC * low:
        for panel in panels:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylim(low / 1.3, high * 1.3)


def _spread_entries(dataset: xr.Dataset, shown: Plan, deviation: Any) -> list[tuple[Any, str]]:
    """What lines, and bands or bars, are, for a legend."""
    seeds = int(dataset.sizes["seed"])
    if seeds == 1:
        return [] if {COLOUR, STYLE} & set(shown.axes) else [(black_line(), "one seed")]
    line = [] if {COLOUR, STYLE} & set(shown.axes) else [(black_line(), f"mean over {seeds} seeds")]
    return [*line, (deviation, f"{DEVIATION},\n{seeds} seeds")]

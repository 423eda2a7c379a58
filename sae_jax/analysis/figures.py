"""Figures from a results Dataset. No training in here."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sae_jax.analysis.cells import (
    MEAN_ACTIVATION,
    by_cell,
    cell_axes,
    cell_count,
    evenly,
    in_double_precision,
    lane_measures,
    name_of,
    over_units,
    short,
    target,
)
from sae_jax.analysis.filters import ROWS, filters, filters_best
from sae_jax.storage.description import names_of_kind
from sae_jax.storage.results import save_figure

STYLE: dict[Any, Any] = {
    "figure.dpi": 120,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
# Rows and columns of a heatmap that are given room of their own are MOST_ROOM.
MOST_PANELS, MOST_LINES, MOST_POINTS, MOST_ROOM = 25, 60, 100, 40
LINE_STYLES = ("-", "--", ":", "-.")
# A curve that falls or rises by more than this factor is drawn on a logarithmic axis.
LOGARITHMIC = 5.0
# What stands for sparsity and for quality in `tradeoff`: the first that a run holds.
SPARSITY, QUALITY = (MEAN_ACTIVATION, "eval_l0"), ("eval_reconstruction", "eval_explained_variance")


class Drawing(NamedTuple):
    """A figure: its function, whether a Dataset has what it needs, and whether it compares several cells."""

    draw: Callable[[xr.Dataset], Figure]
    possible: Callable[[xr.Dataset], bool]
    compares: bool = False


def save_all(dataset: xr.Dataset, folder: Path) -> list[Path]:
    """Draw the figures of a sweep into a folder; their paths.

    One that needs a variable that the run does not hold, or several cells where there is one, is left out.
    """
    figures = {
        "curves": Drawing(curves, lambda dataset: bool(_shown_curves(dataset))),
        "filters_best": Drawing(filters_best, lambda dataset: ROWS in dataset),
        "filters": Drawing(filters, lambda dataset: ROWS in dataset),
        "mean_activation": Drawing(mean_activation, lambda dataset: MEAN_ACTIVATION in dataset),
        "heatmaps": Drawing(heatmaps, lambda dataset: bool(_shown_measures(dataset)), compares=True),
        "tradeoff": Drawing(
            tradeoff, lambda dataset: all(_first(dataset, names) for names in (SPARSITY, QUALITY)), True
        ),
    }
    several, paths = cell_count(dataset) > 1, []
    with matplotlib.rc_context(STYLE), np.errstate(invalid="ignore"):
        for name, drawing in figures.items():
            if drawing.possible(dataset) and (several or not drawing.compares):
                figure = drawing.draw(dataset)
                paths.append(folder / f"{name}.png")
                save_figure(figure, paths[-1])
                plt.close(figure)
    return paths


def heatmaps(dataset: xr.Dataset) -> Figure:
    """Held-out measures over the first two swept settings, averaged over seeds and the other settings."""
    measures, axes = _shown_measures(dataset), cell_axes(dataset)
    rows, columns = (axes[0] if axes else None), (axes[1] if len(axes) > 1 else None)
    shown = [axis for axis in (rows, columns) if axis]
    shape = tuple(dataset.sizes[axis] for axis in shown) + (1,) * (2 - len(shown))
    width, height = 1.4 + 0.62 * min(shape[1], MOST_ROOM), 1.4 + 0.45 * min(shape[0], MOST_ROOM)
    figure, panels = _panels(len(measures), max(width, 2.8), max(height, 2.4))
    for panel, measure in zip(panels, measures, strict=True):
        values = measure.mean([dim for dim in measure.dims if dim not in shown]).values.reshape(shape)
        image = panel.imshow(values, cmap="viridis", aspect="auto")
        _write_values(panel, values)
        panel.set_title(_wrapped(measure), fontsize=8)
        panel.grid(False)
        for axis, set_ticks, set_label in (
            (rows, panel.set_yticks, panel.set_ylabel),
            (columns, panel.set_xticks, panel.set_xlabel),
        ):
            ticks = [short(value) for value in dataset[axis].values] if axis else [""]
            every = max(1, len(ticks) // 10)
            set_ticks(range(0, len(ticks), every), ticks[::every])
            set_label(axis or "")
        figure.colorbar(image, ax=panel)
    figure.suptitle("held-out data, mean over seeds" + (" and " + ", ".join(axes[2:]) if axes[2:] else ""))
    return figure


def curves(dataset: xr.Dataset) -> Figure:
    """Training curves of at most 60 cells, mean and range over seeds; colour is the first swept setting.

    One panel for every curve that a Dataset declares, the total loss first, but for those that are 0 throughout.
    """
    axes, names, total = cell_axes(dataset), _shown_curves(dataset), cell_count(dataset)
    figure, panels = _panels(len(names), 4, 3.4)
    cells = by_cell(dataset[names], chosen=evenly(total, MOST_LINES))
    heights: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for point, single in cells:
        cell = in_double_precision(single)
        colour, style = _look(dataset, axes, point)
        for panel, name in zip(panels, names, strict=True):
            curve = cell[name].dropna("step", how="all")
            mean = curve.mean("seed")
            heights[name].append(mean.values[np.isfinite(mean.values)])
            panel.plot(curve["step"], mean, style, color=colour, lw=1.2, label=name_of(point))
            panel.fill_between(curve["step"], curve.min("seed"), curve.max("seed"), color=colour, alpha=0.15, lw=0)
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(_wrapped(dataset[name]), fontsize=8)
        panel.set(xlabel="step", ylabel=dataset[name].attrs.get("units", ""))
        values = np.concatenate(heights[name])
        if values.size and values.min() > 0 and values.max() > LOGARITHMIC * values.min():
            panel.set_yscale("log")
            panel.yaxis.set_minor_formatter(NullFormatter())
    if len(cells) < total:
        figure.suptitle(f"{len(cells)} of {total} cells")
    if 1 < len(cells) <= 24:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def mean_activation(dataset: xr.Dataset) -> Figure:
    """Mean activation of every unit on held-out data, sorted; one panel for each rho, where the model has a rho."""
    rho = target(dataset)
    dataset = in_double_precision(dataset[[MEAN_ACTIVATION]])
    targets = [None] if rho is None else list(np.unique(np.asarray(rho)))
    targets = [targets[place] for place in evenly(len(targets), MOST_PANELS)]
    figure, panels = _panels(len(targets), 3.4, 3.2, most=5)
    others = [axis for axis in cell_axes(dataset) if axis != "rho"]
    for panel, value in zip(panels, targets, strict=True):
        part = dataset.sel(rho=value) if "rho" in dataset.dims else dataset
        for point, cell in by_cell(part, chosen=evenly(cell_count(part), MOST_LINES)):
            colour, style = _look(part, others, point)
            units = np.sort(cell[MEAN_ACTIVATION].values.ravel())
            units = units[np.isfinite(units)]
            panel.plot(np.linspace(0, 1, len(units)), units, style, color=colour, lw=1.3, label=name_of(point))
        panel.set_xlabel("units of all seeds, by rank")
        if value is not None:
            panel.axhline(value, color="black", lw=0.8, ls=(0, (4, 3)))
            panel.set_title(f"rho = {short(value)} (dashed)")
    panels[0].set_ylabel("mean activation")
    if others and len(panels[0].get_lines()) <= 13:
        panels[0].legend(fontsize=8)
    return figure


def tradeoff(dataset: xr.Dataset) -> Figure:
    """Held-out reconstruction error against mean activation; bars are the standard deviation over seeds.

    Where a run does not hold these, explained variance stands for the error and L0 for the activation.
    """
    x_name, y_name = _first(dataset, SPARSITY), _first(dataset, QUALITY)
    dataset = in_double_precision(dataset[[x_name, y_name]])
    axes = cell_axes(dataset)
    along = "rho" if "rho" in axes else (axes[0] if axes else None)
    if along:
        dataset = dataset.isel({along: evenly(dataset.sizes[along], MOST_POINTS)})
    sparsity, quality = over_units(dataset[x_name]), dataset[y_name]
    others = [axis for axis in axes if axis != along]
    figure, panel = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    lines = dataset.isel({along: 0}) if along else dataset
    groups = by_cell(lines, chosen=evenly(cell_count(lines), MOST_LINES))
    for point, _ in groups:
        colour, style = _look(dataset, others, point)
        x, y = sparsity.sel(point), quality.sel(point)
        panel.errorbar(
            np.atleast_1d(x.mean("seed")),
            np.atleast_1d(y.mean("seed")),
            xerr=np.atleast_1d(x.std("seed")),
            yerr=np.atleast_1d(y.std("seed")),
            fmt="o" + style,
            color=colour,
            ms=4,
            lw=1.1,
            capsize=2,
            label=name_of(point),
        )
    panel.set_xlabel(f"{_wrapped(sparsity, 60)}\n(sparser to the left)")
    panel.set_ylabel(_wrapped(quality, 45))
    panel.set_title("reconstruction against sparsity" + (f", lines along {along}" if along else ""))
    if 1 < len(groups) <= 12:
        panel.legend(fontsize=8)
    return figure


def _shown_curves(dataset: xr.Dataset) -> list[str]:
    """The curves of a Dataset, the total loss first, without those that are 0 or NaN throughout."""
    names = [name for name in names_of_kind(dataset, "curve") if bool((dataset[name].fillna(0) != 0).any())]
    return sorted(names, key=lambda name: name != "loss")


def _shown_measures(dataset: xr.Dataset) -> list[xr.DataArray]:
    """The held-out measures of whole lanes; the mean activation over its target rho, where there is one."""
    measures, rho = lane_measures(dataset), target(dataset)
    if MEAN_ACTIVATION in measures and rho is not None:
        relative = measures[MEAN_ACTIVATION] / rho
        measures[MEAN_ACTIVATION] = relative.assign_attrs(long_name="mean activation / rho")
    return list(measures.values())


def _first(dataset: xr.Dataset, names: tuple[str, ...]) -> str:
    """The first of some variables that a Dataset holds; empty where it holds none."""
    return next((name for name in names if name in dataset), "")


def _panels(count: int, width: float, height: float, most: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in even rows of at most `most`; width and height of each in inches."""
    rows = -(-count // most)
    columns = -(-count // rows)
    figure, panels = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[count:]:
        panel.axis("off")
    return figure, list(panels.flat[:count])


def _wrapped(variable: xr.DataArray, width: int = 38) -> str:
    """A variable's own label in a few short lines."""
    label = str(variable.attrs.get("long_name", variable.name))
    return textwrap.fill(label, width, max_lines=3, placeholder=" ...", break_on_hyphens=False)


def _look(dataset: xr.Dataset, axes: list[str], point: dict[str, Any]) -> tuple[Any, str]:
    """Colour by the first axis, line style by the second."""
    if not axes:
        return plt.get_cmap("viridis")(0.35), "-"
    first = list(dataset[axes[0]].values).index(point[axes[0]])
    colour = plt.get_cmap("viridis")(0.08 + 0.8 * first / max(dataset.sizes[axes[0]] - 1, 1))
    if len(axes) < 2:
        return colour, "-"
    second = list(dataset[axes[1]].values).index(point[axes[1]])
    return colour, LINE_STYLES[second % len(LINE_STYLES)]


def _write_values(panel: Axes, values: np.ndarray) -> None:
    if values.size > 60:
        return
    finite = values[np.isfinite(values)]
    middle = (finite.min() + finite.max()) / 2 if finite.size else 0.0
    digits = ".2f" if finite.size and 0.1 <= np.abs(finite).max() < 100 else ".2g"
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > middle else "white"
        panel.text(column, row, format(value, digits), ha="center", va="center", color=colour, fontsize=8)

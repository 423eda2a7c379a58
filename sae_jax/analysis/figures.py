"""Figures from a results Dataset. No training in here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from sae_jax.analysis.cells import by_cell, cell_axes, cell_count, evenly, in_double_precision, name_of, short, target
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
FAINT = 0.25
LINE_STYLES = ("-", "--", ":", "-.")
HEATMAPS = {
    "eval_reconstruction": "reconstruction error",
    "eval_explained_variance": "explained variance",
    "eval_mean_activation": "mean activation / rho",
    "eval_dead_fraction": "dead fraction",
}


def save_all(dataset: xr.Dataset, folder: Path) -> list[Path]:
    """Draw every figure whose variables a sweep holds into a folder, comparisons where it has several cells; paths."""
    names, several = set(dataset.data_vars), cell_count(dataset) > 1
    figures: dict[str, tuple[Callable[[xr.Dataset], Figure], bool]] = {
        "curves": (curves, bool(names_of_kind(dataset, "curve"))),
        "filters_best": (filters_best, {"decoder_weight", "eval_explained_variance"} <= names),
        "filters": (filters, "decoder_weight" in names),
        "mean_activation": (mean_activation, "eval_mean_activation" in names),
        "heatmaps": (heatmaps, several and bool(HEATMAPS.keys() & names)),
        "tradeoff": (tradeoff, several and {"eval_reconstruction", "eval_mean_activation"} <= names),
    }
    paths = []
    with matplotlib.rc_context(STYLE), np.errstate(invalid="ignore"):
        for name in [name for name, (_, drawable) in figures.items() if drawable]:
            figure = figures[name][0](dataset)
            paths.append(folder / f"{name}.png")
            save_figure(figure, paths[-1])
            plt.close(figure)
    return paths


def heatmaps(dataset: xr.Dataset) -> Figure:
    """Held-out measures over the first two swept settings, averaged over seeds and the other settings."""
    dataset, axes = _measures(dataset), cell_axes(dataset)
    rows, columns = (axes[0] if axes else None), (axes[1] if len(axes) > 1 else None)
    measures = {title: dataset[name] for name, title in HEATMAPS.items() if name in dataset}
    if "eval_mean_activation" in dataset:
        measures["mean activation / rho"] = dataset["eval_mean_activation"].mean("unit") / target(dataset)
    kept = [axis for axis in (rows, columns) if axis]
    shape = tuple(dataset.sizes[axis] for axis in kept) + (1,) * (2 - len(kept))
    width, height = 1.4 + 0.62 * min(shape[1], MOST_ROOM), 1.2 + 0.45 * min(shape[0], MOST_ROOM)
    count = len(measures)
    figure, panels = plt.subplots(
        1, count, figsize=(count * max(width, 2.6), max(height, 2.2)), layout="constrained", squeeze=False
    )
    for panel, (title, measure) in zip(panels.flat, measures.items(), strict=True):
        values = measure.mean([dim for dim in measure.dims if dim not in kept]).values.reshape(shape)
        image = panel.imshow(values, cmap="viridis", aspect="auto")
        _write_values(panel, values)
        panel.set_title(title)
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
    """Training curves of at most 60 cells, mean and range over seeds; colour is the first swept setting."""
    axes, names = cell_axes(dataset), names_of_kind(dataset, "curve")
    figure, row = plt.subplots(1, len(names), figsize=(4 * len(names), 3.6), layout="constrained", squeeze=False)
    panels = row[0]
    total = cell_count(dataset)
    cells = by_cell(dataset[names], chosen=evenly(total, MOST_LINES))
    for point, single in cells:
        cell = in_double_precision(single)
        colour, style = _look(dataset, axes, point)
        for panel, name in zip(panels, names, strict=True):
            curve = cell[name].dropna("step", how="all")
            panel.plot(curve["step"], curve.mean("seed"), style, color=colour, lw=1.2, label=name_of(point))
            panel.fill_between(curve["step"], curve.min("seed"), curve.max("seed"), color=colour, alpha=0.15, lw=0)
    for panel, name in zip(panels, names, strict=True):
        panel.set(title=dataset[name].attrs["long_name"].partition(",")[0], xlabel="step")
        if not name.endswith("reconstruction") and all(np.all(_heights(line) > 0) for line in panel.get_lines()):
            panel.set_yscale("log")
            panel.yaxis.set_minor_formatter(NullFormatter())
    if len(cells) < total:
        figure.suptitle(f"{len(cells)} of {total} cells")
    if 1 < len(cells) <= 24:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def filters_best(dataset: xr.Dataset) -> Figure:
    """Decoder rows of the lane with the highest explained variance on held-out data."""
    scores = dataset["eval_explained_variance"]
    if not bool(scores.notnull().any()):
        scores = xr.zeros_like(scores)
    index = {dim: int(position) for dim, position in scores.fillna(-np.inf).argmax(scores.dims).items()}
    lane = in_double_precision(dataset.isel(index))
    point = {axis: lane[axis].item() for axis in cell_axes(dataset)} | {"seed": lane["seed"].item()}
    figure, panel = plt.subplots(figsize=(5, 5), layout="constrained")
    _draw_filters(panel, lane)
    panel.set_title(
        f"decoder rows, best lane (faint: dead units)\n{name_of(point)}  explained variance {float(scores[index]):.3f}"
    )
    return figure


def filters(dataset: xr.Dataset) -> Figure:
    """Decoder rows of every cell's first seed; of at most 25 cells, evenly apart, where there are more."""
    total, axes = cell_count(dataset), cell_axes(dataset)
    chosen = by_cell(dataset, chosen=evenly(total, MOST_PANELS))
    columns = dataset.sizes[axes[-1]] if axes and len(chosen) == total else 5
    columns = min(max(columns, 1), 6, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.85 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat:
        panel.axis("off")
    for panel, (point, cell) in zip(panels.flat, chosen, strict=False):
        lane = in_double_precision(cell.isel(seed=0))
        _draw_filters(panel, lane)
        score = lane.get("eval_explained_variance")
        panel.set_title(
            name_of(point) + (f"\nexplained variance {float(score):.2f}" if score is not None else ""), fontsize=8
        )
    figure.suptitle(
        f"decoder rows, seed {dataset['seed'].values[0]} (faint: dead units)"
        + (f", {len(chosen)} of {total} cells" if len(chosen) < total else "")
    )
    return figure


def mean_activation(dataset: xr.Dataset) -> Figure:
    """Mean activation of every unit on held-out data, sorted, against the target rho; one panel for each rho."""
    dataset = _measures(dataset)
    targets = np.unique(np.asarray(target(dataset)))
    targets = targets[evenly(len(targets), MOST_PANELS)]
    columns = min(len(targets), 5)
    rows = -(-len(targets) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    others = [axis for axis in cell_axes(dataset) if axis != "rho"]
    for panel in panels.flat[len(targets) :]:
        panel.axis("off")
    for panel, rho in zip(panels.flat, targets, strict=False):
        part = dataset.sel(rho=rho) if "rho" in dataset.dims else dataset
        for point, cell in by_cell(part, chosen=evenly(cell_count(part), MOST_LINES)):
            colour, style = _look(part, others, point)
            units = np.sort(cell["eval_mean_activation"].values.ravel())
            units = units[np.isfinite(units)]
            panel.plot(np.linspace(0, 1, len(units)), units, style, color=colour, lw=1.3, label=name_of(point))
        panel.axhline(rho, color="black", lw=0.8, ls=(0, (4, 3)))
        panel.set(title=f"rho = {short(rho)} (dashed)", xlabel="units of all seeds, by rank")
    panels[0, 0].set_ylabel("mean activation")
    if 1 <= len(panels[0, 0].get_lines()) - 1 <= 12 and others:
        panels[0, 0].legend(fontsize=8)
    return figure


def tradeoff(dataset: xr.Dataset) -> Figure:
    """Held-out reconstruction error against mean activation; bars are the standard deviation over seeds."""
    dataset, axes = _measures(dataset), cell_axes(dataset)
    along = "rho" if "rho" in axes else (axes[0] if axes else None)
    if along:
        dataset = dataset.isel({along: evenly(dataset.sizes[along], MOST_POINTS)})
    sparsity = dataset["eval_mean_activation"].mean("unit")
    error = dataset["eval_reconstruction"]
    others = [axis for axis in axes if axis != along]
    figure, panel = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    lines = dataset.isel({along: 0}) if along else dataset
    groups = by_cell(lines, chosen=evenly(cell_count(lines), MOST_LINES))
    for point, _ in groups:
        colour, style = _look(dataset, others, point)
        x, y = sparsity.sel(point), error.sel(point)
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
    panel.set(
        xlabel="mean activation on held-out data (sparser to the left)",
        ylabel="held-out reconstruction error",
        title="reconstruction against sparsity" + (f", lines along {along}" if along else ""),
    )
    if 1 < len(groups) <= 12:
        panel.legend(fontsize=8)
    return figure


def _measures(dataset: xr.Dataset) -> xr.Dataset:
    """The held-out measures alone, in double precision: parameters and curves may be larger than memory."""
    return in_double_precision(dataset[[name for name in dataset.data_vars if str(name).startswith("eval_")]])


def tile(weights: np.ndarray, shape: tuple[int, int], contrast: np.ndarray | None = None) -> np.ndarray:
    """Decoder rows as one picture, nearly square, each row scaled to its own largest magnitude; gaps are NaN.

    Args:
        weights: [units, height * width].
        shape: (height, width).
        contrast: largest magnitude to scale each row to, [units]; None is 1.
    """
    contrast = np.ones(len(weights)) if contrast is None else contrast
    columns = int(np.ceil(np.sqrt(len(weights))))
    rows = -(-len(weights) // columns)
    height, width = shape
    picture = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), np.nan)
    for i, row in enumerate(weights):
        centred = row - row.mean()
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        scale = max(float(np.abs(centred).max()), 1e-12)
        picture[top : top + height, left : left + width] = (contrast[i] * centred / scale).reshape(shape)
    return picture


def _draw_filters(panel: Axes, lane: xr.Dataset) -> None:
    """Decoder rows of a lane; those of dead units, which reconstruct nothing but a constant, are faint."""
    weights = lane["decoder_weight"].dropna("unit", how="all").dropna("input", how="all").values
    shape = (int(lane.get("image_height", 0)), int(lane.get("image_width", 0)))
    panel.axis("off")
    if min(shape) > 0 and weights.size:
        # A dead unit's largest activity is below every living one's, so their number tells which they are.
        contrast = np.ones(len(weights))
        if "eval_max_activation" in lane and "eval_dead_fraction" in lane:
            order = np.argsort(lane["eval_max_activation"].values[: len(weights)])
            contrast[order[: round(float(lane["eval_dead_fraction"]) * len(weights))]] = FAINT
        panel.imshow(tile(weights, shape, contrast), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    elif weights.size:
        limit = max(float(np.abs(weights).max()), 1e-12)
        panel.imshow(weights, cmap="gray", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        panel.set_axis_on()
        panel.set(xlabel="input", ylabel="unit", xticks=[], yticks=[])


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
        panel.text(
            column,
            row,
            format(value, digits),
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
        )


def _heights(line: Line2D) -> np.ndarray:
    heights = np.asarray(line.get_ydata(), float)
    return heights[np.isfinite(heights)]

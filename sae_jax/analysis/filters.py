"""Decoder rows as pictures: of the best lane, and of every cell of a sweep."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_jax.analysis.cells import by_cell, cell_axes, cell_count, evenly, in_double_precision, name_of

ROWS, FIRING_RATE, SCORE = "decoder_weight", "eval_firing_rate", "eval_explained_variance"
MOST_FILTERS = 25
FAINT = 0.25


def filters_best(dataset: xr.Dataset) -> Figure:
    """Decoder rows of the lane with the highest explained variance on held-out data; of the first where none has it."""
    lanes = (*cell_axes(dataset), "seed")
    score = dataset[SCORE].fillna(-np.inf) if SCORE in dataset else xr.zeros_like(dataset[ROWS].isel(unit=0, input=0))
    index = {dim: int(position) for dim, position in score.transpose(*lanes).argmax(lanes).items()}
    lane = in_double_precision(dataset.isel(index))
    point = {name: lane[name].item() for name in lanes}
    figure, panel = plt.subplots(figsize=(5, 5), layout="constrained")
    _draw_filters(panel, lane)
    which = "best" if SCORE in dataset else "first"
    panel.set_title(f"decoder rows, {which} lane{_dead_units(dataset)}\n{name_of(point)}{_score(lane, '  ', 3)}")
    return figure


def filters(dataset: xr.Dataset) -> Figure:
    """Decoder rows of every cell's first seed; of at most 25 cells, evenly apart, where there are more."""
    total, axes = cell_count(dataset), cell_axes(dataset)
    chosen = by_cell(dataset, chosen=evenly(total, MOST_FILTERS))
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
        panel.set_title(name_of(point) + _score(lane, "\n", 2), fontsize=8)
    figure.suptitle(
        f"decoder rows, seed {dataset['seed'].values[0]}{_dead_units(dataset)}"
        + (f", {len(chosen)} of {total} cells" if len(chosen) < total else "")
    )
    return figure


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
    weights = lane[ROWS].dropna("unit", how="all").dropna("input", how="all").values
    shape = (int(lane.get("image_height", 0)), int(lane.get("image_width", 0)))
    panel.axis("off")
    if min(shape) > 0 and weights.size:
        contrast = np.ones(len(weights))
        if FIRING_RATE in lane:
            contrast[lane[FIRING_RATE].values[: len(weights)] == 0] = FAINT
        panel.imshow(tile(weights, shape, contrast), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    elif weights.size:
        limit = max(float(np.abs(weights).max()), 1e-12)
        panel.imshow(weights, cmap="gray", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        panel.set_axis_on()
        panel.set(xlabel="input", ylabel="unit", xticks=[], yticks=[])


def _dead_units(dataset: xr.Dataset) -> str:
    """How dead units look, where a run says which they are."""
    return " (faint: dead units)" if FIRING_RATE in dataset else ""


def _score(lane: xr.Dataset, separator: str, digits: int) -> str:
    """A lane's explained variance, for a title; nothing where the run does not hold it."""
    return f"{separator}explained variance {float(lane[SCORE]):.{digits}f}" if SCORE in lane else ""

"""How alike decoder rows are: what can be seen of rows that are no images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from sae_jax.analysis.cells import by_cell, cell_count, evenly, name_of
from sae_jax.analysis.channels import spare
from sae_jax.analysis.filters import MOST_CELLS, ROWS, first_lane
from sae_jax.analysis.style import Style, balanced, panel_width, panels_of, say, wrapped

# Rows whose nearest one is searched for, of a lane that has more.
MOST_ROWS = 1000
BINS = np.linspace(-1, 1, 41)


def cosines(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Cosine of every decoder row with the row nearest to it: a histogram for every cell, of its first trained seed."""
    total = cell_count(dataset)
    cells = [(point, first_lane(cell)) for point, cell in by_cell(dataset, chosen=evenly(total, MOST_CELLS))]
    columns = balanced(len(cells), 5 if style.widths is None else 3)
    rows = -(-len(cells) // columns)
    figure, panels = panels_of(style, rows, columns, (2.1, 1.9), beside=False)
    spare(panels.flat[len(cells) :])
    for panel, (point, lane) in zip(panels.flat, cells, strict=False):
        panel.set_title(wrapped(name_of(point), panel_width(figure, style, columns, False), style.font))
        nearest = nearest_cosines(lane[ROWS].values.astype(float)) if lane is not None else np.array([])
        if not nearest.size:
            panel.axis("off")
            panel.text(0.5, 0.5, "no two rows", ha="center", transform=panel.transAxes)
            continue
        panel.hist(nearest, BINS, weights=np.full(len(nearest), 1 / len(nearest)), color="0.4")
        panel.axvline(float(np.median(nearest)), color="black", lw=1, ls="--")
        panel.set_xlim(-1, 1)
    label = "cosine with the nearest other decoder row; 1 is the same direction"
    figure.supxlabel(wrapped(label, figure.get_figwidth(), style.font), fontsize=style.font)
    figure.supylabel("share of units", fontsize=style.font)
    part = f"; {len(cells)} of {total} cells" if len(cells) < total else ""
    say(figure, style, f"how alike decoder rows are, one lane of every cell; dashed: median{part}", dataset)
    return figure


def nearest_cosines(rows: np.ndarray) -> np.ndarray:
    """The largest cosine of a row with any other one, of at most MOST_ROWS rows, evenly apart; rows of zeros have none.

    Args:
        rows: [units, inputs]; NaN where other lanes have more units or inputs.
    """
    rows = rows[np.isfinite(rows).any(axis=1)]
    rows = rows[:, np.isfinite(rows).any(axis=0)] if len(rows) else rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = (rows / np.where(norms > 0, norms, 1))[norms[:, 0] > 0].astype(np.float32)
    if len(directions) < 2:
        return np.array([])
    chosen = evenly(len(directions), MOST_ROWS)
    products = directions[chosen] @ directions.T
    products[np.arange(len(chosen)), chosen] = -np.inf
    return products.max(axis=1)

"""How alike decoder rows are: what can be seen of rows that are no images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from sae_jax.analysis.cells import by_cell, cell_count, evenly, name_of
from sae_jax.analysis.channels import spare
from sae_jax.analysis.filters import MOST_CELLS, first_lane
from sae_jax.analysis.style import Style, balanced, panel_width, panels_of, say, wrapped
from sae_jax.training.lane import ROWS

# Rows whose nearest one is searched for, of a lane that has more.
MOST_ROWS = 1000
# Memory of the cosines that are worked on at once.
PIECE_BYTES = 2**26
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
    directions, nonzero = _directions(rows)
    directions = directions[nonzero]
    if len(directions) < 2:
        return np.array([])
    chosen = evenly(len(directions), MOST_ROWS)
    products = directions[chosen] @ directions.T
    products[np.arange(len(chosen)), chosen] = -np.inf
    return products.max(axis=1)


def nearest_rows(rows: np.ndarray, others: np.ndarray | None = None, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The rows that make the largest cosines with each row, nearest first, some rows at a time.

    Args:
        rows: [units, inputs].
        others: [others, inputs], among which they are looked for; None is the other ones of `rows`.
        count: how many of them.

    Returns:
        (their numbers, their cosines), each [units, count]; -1 and NaN where there are no more, and for rows of zeros.
    """
    (directions, nonzero), (among, others_nonzero) = _directions(rows), _directions(rows if others is None else others)
    columns = min(count, len(among))
    numbers = np.full((len(rows), count), -1, np.int32)
    cosines = np.full((len(rows), count), np.nan, np.float32)
    step = max(1, PIECE_BYTES // (4 * max(len(among), 1)))
    for start in range(0, len(rows) if columns else 0, step):
        part = directions[start : start + step]
        products = part @ among.T
        products[:, ~others_nonzero] = -np.inf
        if others is None:
            products[np.arange(len(part)), np.arange(start, start + len(part))] = -np.inf
        best = np.argpartition(products, -columns, axis=1)[:, -columns:]
        largest = np.take_along_axis(products, best, axis=1)
        order = np.argsort(-largest, axis=1, kind="stable")
        best, largest = (np.take_along_axis(values, order, axis=1) for values in (best, largest))
        inside = (largest > -np.inf) & nonzero[start : start + step, None]
        numbers[start : start + step, :columns] = np.where(inside, best, -1)
        cosines[start : start + step, :columns] = np.where(inside, largest, np.nan)
    return numbers, cosines


def _directions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to length 1, and which of them are not zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32), norms[:, 0] > 0

"""Decoder rows as pictures: of the best lane, and of every cell of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_jax.analysis.cells import EXPLAINED, by_cell, cell_axes, cell_count, counted, evenly, name_of
from sae_jax.analysis.style import Style, say, wrapped
from sae_jax.training.lane import ROWS

FIRING_RATE = "eval_firing_rate"
MOST_CELLS = 25
FAINT = 0.25
Side = Literal["left", "center"]


class Pixels(NamedTuple):
    """The measures of a figure of pictures, in its own pixels.

    Attributes:
        most: width of a figure, at most.
        picture: width that a picture is magnified to, about.
        narrowest: width of a column, at least, for its title.
        gap: between columns.
        line: height of a line of text.
    """

    most: int
    picture: int
    narrowest: int
    gap: int
    line: int


def pixels_of(style: Style, columns: int) -> Pixels:
    """How large figures of pictures are in a style."""
    dpi = style.settings["figure.dpi"]
    line = int(style.font * 1.45 * dpi / 72)
    if style.widths:
        most = int(style.widths[columns > 2] * dpi)
        return Pixels(most, most // columns - line, most // columns - line, line // 2, line)
    return Pixels(1800, 850 if columns == 1 else 300, 190, line, line)


def has_images(dataset: xr.Dataset) -> bool:
    """Whether any lane's decoder rows are images."""
    sides = [dataset[name] for name in ("image_height", "image_width") if name in dataset]
    return ROWS in dataset and len(sides) == 2 and all(bool((side > 0).any()) for side in sides)


def filters_best(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Decoder rows of the lane with the highest explained variance on held-out data; of the first where none has it."""
    lanes = (*cell_axes(dataset), "seed")
    scored = EXPLAINED in dataset
    score = counted(dataset, [EXPLAINED])[EXPLAINED] if scored else dataset[ROWS].notnull().all(("unit", "input"))
    index = score.transpose(*lanes).fillna(-np.inf).argmax(lanes)
    lane = dataset.isel({dim: int(position) for dim, position in index.items()})
    name = name_of({dim: lane[dim].item() for dim in lanes})
    pixels = pixels_of(style, 1)
    picture, words = _picture(lane, pixels.most if style.widths else 900)
    figure, [panel] = picture_panels([picture], [""], 1, pixels, style)
    which = f"the best lane, {name}{score_of(lane)}" if scored else f"the first lane, {name}"
    show_picture(panel, picture)
    say(figure, style, f"decoder rows of {which}{words}{_dead_units(dataset)}", dataset)
    return figure


def filters(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """Decoder rows of every cell's first seed that was trained; of at most 25 cells, evenly apart."""
    total = cell_count(dataset)
    cells = [(point, first_lane(cell)) for point, cell in by_cell(dataset, chosen=evenly(total, MOST_CELLS))]
    columns = min(_columns(dataset, 4 if style.widths else 6) if len(cells) == total else 5, len(cells))
    pixels = pixels_of(style, columns)
    room = (pixels.most - pixels.gap) // columns - pixels.gap
    pictures = [_picture(lane, room) if lane is not None else (np.zeros((1, 1)), "") for _, lane in cells]
    titles = [
        f"{name_of(point)}\n{'no lane trained' if lane is None else score_of(lane).lstrip(', ')}".strip()
        for point, lane in cells
    ]
    figure, panels = picture_panels([picture for picture, _ in pictures], titles, columns, pixels, style)
    for panel, (_, lane), (picture, _) in zip(panels, cells, pictures, strict=True):
        panel.axis("off")
        if lane is not None:
            show_picture(panel, picture)
    part = f"; {len(cells)} of {total} cells" if len(cells) < total else ""
    words = max((words for _, words in pictures), key=len)
    say(figure, style, f"decoder rows of a lane of every cell{words}{_dead_units(dataset)}{part}", dataset)
    return figure


def _columns(dataset: xr.Dataset, most: int) -> int:
    """Columns in which rows of panels are whole axes: as many of the last axes as fit."""
    columns = 1
    for axis in reversed(cell_axes(dataset)):
        if columns * dataset.sizes[axis] > most:
            return columns if columns > 1 else most
        columns *= dataset.sizes[axis]
    return columns


def first_lane(cell: xr.Dataset) -> xr.Dataset | None:
    """The first seed of a cell that was trained and did not diverge; of those that diverged, where all did."""
    trained = cell[ROWS].notnull().any([dim for dim in cell[ROWS].dims if dim != "seed"]).values
    healthy = trained & ~(cell["diverged_at"] >= 0).values if "diverged_at" in cell else trained
    places = np.flatnonzero(healthy if healthy.any() else trained)
    return cell.isel(seed=int(places[0])) if len(places) else None


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


def _picture(lane: xr.Dataset, room: int) -> tuple[np.ndarray, str]:
    """A lane's decoder rows, as many as there is room for in so many pixels with one a weight, and how many these are.

    Rows of dead units, which reconstruct nothing but a constant, are faint.
    """
    rows = lane[ROWS].dropna("unit", how="all").dropna("input", how="all").values.astype(float)
    shape = int(lane["image_height"]), int(lane["image_width"])
    if min(shape) < 1 or not rows.size:
        return np.zeros((1, 1)), ""
    most = max((room - 1) // (max(shape) + 1), 1) ** 2
    units = evenly(len(rows), most)
    contrast = np.ones(len(rows))
    if FIRING_RATE in lane:
        contrast[lane[FIRING_RATE].values[: len(rows)] == 0] = FAINT
    words = f", {most} of {len(rows)} units" if most < len(rows) else ""
    return tile(rows[units], shape, contrast[units]), words


def picture_panels(
    pictures: list[np.ndarray], titles: list[str], columns: int, pixels: Pixels, style: Style, side: Side = "center"
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, each as many whole pixels wide and high as its picture's magnification makes it.

    Args:
        pictures: by panel.
        titles: above them.
        columns: of panels.
        pixels: how large they are.
        style: how the figure looks.
        side: of the picture at which its title stands.
    """
    dpi, font = style.settings["figure.dpi"], style.font - 1
    sizes = [tuple(side * _magnification(picture, pixels) for side in picture.shape) for picture in pictures]
    width = max(pixels.narrowest, *(size[1] for size in sizes)) + pixels.gap
    titles = [wrapped(text, (width - pixels.gap) / dpi, font) for text in titles]
    lines = max(text.count("\n") + bool(text) for text in titles)
    height = max(size[0] for size in sizes) + lines * pixels.line + pixels.gap
    rows, caption = -(-len(pictures) // columns), 4 * pixels.line if style.captions else 0
    whole = columns * width + pixels.gap, rows * height + caption + pixels.gap
    figure = plt.figure(figsize=(whole[0] / dpi, whole[1] / dpi))
    panels = []
    for place, ((down, across), text) in enumerate(zip(sizes, titles, strict=True)):
        row, column = divmod(place, columns)
        left = pixels.gap + column * width + (width - pixels.gap - across) // 2
        top = whole[1] - caption - row * height - lines * pixels.line
        panel = figure.add_axes((left / whole[0], (top - down) / whole[1], across / whole[0], down / whole[1]))
        panel.set_title(text, fontsize=font, pad=3, loc=side)
        panels.append(panel)
    return figure, panels


def _magnification(picture: np.ndarray, pixels: Pixels) -> int:
    """Pixels for each weight, a whole number."""
    return max(pixels.picture // max(picture.shape), 1)


def show_picture(panel: Axes, picture: np.ndarray) -> None:
    """Show a picture of values in [-1, 1] in grey; NaN is white."""
    panel.axis("off")
    options: dict[str, Any] = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
    panel.imshow(picture, **options)


def _dead_units(dataset: xr.Dataset) -> str:
    """How dead units look, where a run says which they are."""
    return "; faint: dead units" if FIRING_RATE in dataset else ""


def score_of(lane: xr.Dataset) -> str:
    """A lane's explained variance, or that it diverged, for a title; nothing where the run does not say."""
    if "diverged_at" in lane and lane["diverged_at"] >= 0:
        return f", diverged at step {int(lane['diverged_at'])}"
    return f", explained variance {float(lane[EXPLAINED]):.2f}" if EXPLAINED in lane else ""

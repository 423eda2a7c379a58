"""A page of units: decoder rows beside the samples that they stand for, or these samples' names, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sae_jax.analysis.cells import EXPLAINED, PRESENT, cell_axes, counted, evenly, name_of
from sae_jax.analysis.channels import PALETTE
from sae_jax.analysis.filters import Pixels, picture_panels, pixels_of, score_of, show_picture, tile
from sae_jax.analysis.lanes import trained
from sae_jax.analysis.style import Style, say
from sae_jax.analysis.unit_variables import (
    DENSE,
    DENSE_ABOVE,
    DENSITY,
    MATCH_COSINES,
    MEAN,
    NEAREST,
    NEAREST_COSINES,
    TOP,
    TOP_CODES,
    TOP_NAMES,
)
from sae_jax.training.lane import ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Units on a page, in so many columns; samples beside a decoder row, in two lines; and names of a unit.
SHOWN, COLUMNS, SAMPLES, NAMES = 24, 4, 8, 6
LONGEST_NAME = 20
BAR, MARKED = "#BBD9EE", PALETTE[2]


def has_units(dataset: xr.Dataset) -> bool:
    """Whether what a reader needs of units has been kept of any lane."""
    return DENSITY in dataset and bool(dataset[DENSITY].notnull().any())


def best_of_units(dataset: xr.Dataset) -> dict[str, int]:
    """The lane with the highest explained variance among those of whose units something is kept, by position."""
    lanes = (*cell_axes(dataset), "seed")
    measured = dataset[DENSITY].notnull().any("unit")
    score = counted(dataset, [EXPLAINED])[EXPLAINED] if EXPLAINED in dataset else xr.zeros_like(measured, float)
    ranked = score.fillna(np.finfo(float).min).where(measured, -np.inf).transpose(*lanes)
    return {str(dim): int(place) for dim, place in ranked.argmax(lanes).items()}


def units(dataset: xr.Dataset, style: Style, measures: Sequence[str] = ()) -> Figure:
    """The page of the best lane's units; where samples are images, they are loaded again as the settings say."""
    place = best_of_units(dataset)
    heldout = None
    if _shape(dataset.isel(place)) is not None:
        lane = dataset.isel({dim: [position] for dim, position in place.items()}).drop_vars(PRESENT, errors="ignore")
        heldout = trained(lane)[0].data.heldout
    return unit_page(dataset, place, heldout, style)


def unit_page(dataset: xr.Dataset, place: dict[str, int], heldout: np.ndarray | None, style: Style) -> Figure:
    """About 24 of a lane's units, from the densest to the rarest, evenly apart; dead ones are left out.

    Args:
        dataset: of a sweep, with what `sae_jax.analysis.units.measure` keeps.
        place: of the lane, by dimension.
        heldout: the samples whose numbers are kept, [samples, d_in]; needed where they are images.
        style: how it looks.
    """
    lane = dataset.isel(place)
    density = lane[DENSITY].values[np.isfinite(lane[DENSITY].values)]
    order = np.argsort(-density, kind="stable")[: int((density > 0).sum())]
    shown = order[evenly(len(order), SHOWN)] if len(order) else order
    shape = _shape(lane)
    if not len(shown):
        figure, words = _no_units(style)
    elif shape is not None and heldout is not None:
        figure, words = _images(lane, shown, heldout, shape, style)
    elif TOP_NAMES in lane and (lane[TOP_NAMES].values != "").any():
        figure, words = _names(lane, shown, style)
    else:
        figure, words = _numbers(lane, shown, style)
    named = name_of({str(dim): lane[dim].item() for dim in place})
    part = f"{len(shown)} of {len(order)} units that fire" if len(shown) < len(order) else f"{len(order)} units"
    span = "from the densest to the rarest"
    counts = f"of {len(density)} units {len(density) - len(order)} are dead and {int(lane[DENSE].sum())} dense"
    counts = f"{counts} (active on more than {DENSE_ABOVE:.0%})"
    say(figure, style, f"{part}, {span}, of the lane {named}{score_of(lane)}: {words}; {counts}", dataset)
    return figure


def _shape(lane: xr.Dataset) -> tuple[int, int] | None:
    """(height, width) of a lane's samples, where they are images."""
    sides = tuple(int(lane[name]) for name in ("image_height", "image_width") if name in lane)
    return (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None


def _whole(lane: xr.Dataset, name: str) -> np.ndarray:
    """Numbers of samples or units; a union of runs holds NaN where one of them has none."""
    return np.asarray(np.nan_to_num(lane[name].values, nan=-1), int)


def _title(lane: xr.Dataset, unit: int) -> str:
    return f"unit {unit}: {_share(float(lane[DENSITY][unit]))}"


def _share(density: float) -> str:
    return f"{100 * density:#.2g}".rstrip(".") + "%" if density < 0.995 else "100%"


def _images(
    lane: xr.Dataset, shown: np.ndarray, heldout: np.ndarray, shape: tuple[int, int], style: Style
) -> tuple[Figure, str]:
    """A decoder row at twice the size beside the samples that its unit is most active on."""
    height, width = shape
    rows = lane[ROWS].dropna("unit", how="all").dropna("input", how="all").values.astype(float)
    count = min(SAMPLES, lane.sizes["top_rank"])
    samples = _whole(lane, TOP)[shown, :count]
    low, high = np.quantile(heldout[samples[samples >= 0]], [0.005, 0.995])
    across = -(-count // 2)
    pictures = []
    for unit, numbers in zip(shown, samples, strict=True):
        picture = np.full((2 * height + 1, 2 * width + 1 + across * (width + 1) + width // 4), np.nan)
        large = np.kron(tile(rows[[unit]], shape)[1:-1, 1:-1], np.ones((2, 2)))
        picture[: 2 * height, : 2 * width] = large
        for place, number in enumerate(numbers[numbers >= 0]):
            top = (place // across) * (height + 1)
            left = 2 * width + 1 + width // 4 + (place % across) * (width + 1)
            sample = np.clip(2 * (heldout[number] - low) / max(high - low, 1e-12) - 1, -1, 1)
            picture[top : top + height, left : left + width] = sample.reshape(shape)
        pictures.append(picture)
    columns = min(COLUMNS, len(shown))
    pixels = pixels_of(style, COLUMNS)
    if not style.widths:
        pixels = Pixels(pixels.most, 360, 240, pixels.gap, pixels.line)
    titles = [_title(lane, int(unit)) for unit in shown]
    figure, panels = picture_panels(pictures, titles, columns, pixels, style, "left")
    for panel, picture in zip(panels, pictures, strict=True):
        show_picture(panel, picture)
    words = "the decoder row, and the held-out samples that the unit is most active on"
    return figure, f"{words}; in the titles its density"


def _names(lane: xr.Dataset, shown: np.ndarray, style: Style) -> tuple[Figure, str]:
    """The names of the samples that units are most active on, each once, with a bar as long as the activation."""
    listed = [_listed(lane, int(unit)) for unit in shown]
    figure, panels = _grid(style, [len(names) + 1 for names in listed])
    for panel, unit, names in zip(panels, shown, listed, strict=True):
        panel.text(0, -1, _title(lane, int(unit)), va="center", fontsize=style.font, fontweight="bold")
        for place, (name, codes) in enumerate(names.items()):
            share = min(codes[0] / max(next(iter(names.values()))[0], 1e-12), 1.0)
            panel.barh(place, 0.88 * share, height=0.86, color=BAR)
            panel.text(0.015, place, _drawable(name), va="center", fontsize=style.font - 1)
            if len(codes) > 1:
                count = f"{len(codes)}x"
                panel.text(1.0, place, count, va="center", ha="right", fontsize=style.font - 2, color="0.35")
    words = "the names of the held-out samples that the unit is most active on, with bars as long as the activation"
    return figure, f"{words}, and how many of its top {lane.sizes['top_rank']} are named so; in the titles its density"


def _listed(lane: xr.Dataset, unit: int) -> dict[str, list[float]]:
    """The first names of a unit's top samples, with the magnitudes of its codes on the samples of each."""
    codes = np.abs(lane[TOP_CODES].values[unit])
    names: dict[str, list[float]] = {}
    for name, code in zip(lane[TOP_NAMES].values[unit][np.isfinite(codes)], codes[np.isfinite(codes)], strict=True):
        names.setdefault(str(name), []).append(float(code))
    return dict(list(names.items())[:NAMES])


def _numbers(lane: xr.Dataset, shown: np.ndarray, style: Style) -> tuple[Figure, str]:
    """Density against the mean code of all units, and a table of some with the units nearest to them."""
    size = (style.widths[1], 3.6) if style.widths else (10.6, 5.6)
    figure, [panel, table] = plt.subplots(1, 2, figsize=size, layout="constrained", width_ratios=(1, 1.25))
    density, mean = lane[DENSITY].values, lane[MEAN].values
    plotted = np.isfinite(density) & (density > 0) & np.isfinite(mean)
    others = np.setdiff1d(np.flatnonzero(plotted), shown)
    panel.plot(density[others], mean[others], "o", ms=3, color="0.6", mew=0, label="other units")
    panel.plot(density[shown], mean[shown], "s", ms=4, color=MARKED, mew=0, label="units of the table")
    panel.axvline(DENSE_ABOVE, color="black", lw=1, ls="--", label="dense above")
    panel.set(xscale="log", xlabel="density: share of samples on which a unit fires", ylabel="mean code where it fires")
    decades = np.log10(density[plotted].max() / density[plotted].min())
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
    panel.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    panel.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower left", ncols=3)
    matched = MATCH_COSINES in lane
    heads = ["unit", "density", "mean code", "nearest units (cosine)", *(["best match"] if matched else [])]
    places = [0.06, 0.2, 0.39, 0.46, 0.98]
    table.axis("off")
    table.set(xlim=(0, 1), ylim=(SHOWN + 0.5, -0.7))
    lines = [heads, *(_line(lane, int(unit), matched) for unit in shown)]
    for number, line in enumerate(lines):
        for place, (x, text) in enumerate(zip(places, line, strict=False)):
            side = "left" if place == 3 else "right"
            weight = "bold" if number == 0 else "normal"
            table.text(x, number, text, ha=side, va="center", fontsize=style.font - 1, fontweight=weight)
    seeds = "; best match: mean over other seeds of the largest cosine with a decoder row of theirs" if matched else ""
    return figure, f"density, mean code where a unit fires, and nearest decoder rows{seeds}"


def _line(lane: xr.Dataset, unit: int, matched: bool) -> list[str]:
    most = 3 if lane.sizes["unit"] < 1000 else 2
    near = zip(_whole(lane, NEAREST)[unit, :most], lane[NEAREST_COSINES].values[unit, :most], strict=True)
    listed = "  ".join(f"{other} ({cosine:.2f})" for other, cosine in near if other >= 0)
    cosines = lane[MATCH_COSINES].values[unit] if matched else np.array([])
    match = [f"{np.nanmean(cosines):.2f}" if np.isfinite(cosines).any() else ""] if matched else []
    return [str(unit), _share(float(lane[DENSITY][unit])), f"{float(lane[MEAN][unit]):.3g}", listed, *match]


def _no_units(style: Style) -> tuple[Figure, str]:
    figure = plt.figure(figsize=(style.widths[0] if style.widths else 6, 1.2))
    words = "no unit is active on a held-out sample"
    figure.text(0.5, 0.3, words, ha="center", fontsize=style.font)
    return figure, words


def _grid(style: Style, lines: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """A figure of panels without axes, a row of them as high as its highest; each of so many lines of text."""
    columns = min(COLUMNS, len(lines))
    highest = [max(lines[start : start + columns]) for start in range(0, len(lines), columns)]
    line = style.font * 1.4 / 72
    across = (style.widths[1] if style.widths else 10.6) * columns / COLUMNS
    caption = 5 * line if style.captions else 0.05
    down = (sum(highest) + 0.8 * len(highest)) * line + caption
    figure = plt.figure(figsize=(max(across, 4.0), down))
    panels = []
    for place in range(len(lines)):
        row, column = divmod(place, columns)
        height = highest[row] * line / down
        top = 1 - (caption + (sum(highest[:row]) + 0.8 * row) * line) / down
        panels.append(figure.add_axes(((column + 0.04) / columns, top - height, 0.92 / columns, height)))
        panels[-1].set(xlim=(0, 1.02), ylim=(highest[row] - 1.5, -1.5))
        panels[-1].axis("off")
    return figure, panels


def _drawable(name: str) -> str:
    """A name as a figure can show it: spaces at its ends are seen, what the font lacks is escaped, the rest is cut."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    before, after = (len(name) - len(stripped) for stripped in (name.lstrip(" "), name.rstrip(" ")))
    space, inner = "\N{OPEN BOX}", name.strip(" ")
    seen = space * before + inner + space * after if inner else space * before
    escaped = "".join(one if font.get_char_index(ord(one)) else one.encode("unicode_escape").decode() for one in seen)
    return escaped if len(escaped) <= LONGEST_NAME else f"{escaped[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"

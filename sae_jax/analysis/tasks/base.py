"""What the applications share: what they measure of every lane, and the pieces of their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from sae_jax.analysis.cells import by_cell, name_of
from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.data import Data
from sae_jax.models.base import Batch
from sae_jax.settings import UserError
from sae_jax.training.evaluation import decode, encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DOTS = 30


class TaskVariable(NamedTuple):
    """One variable that an application adds to a Dataset.

    Attributes:
        values: [lanes, ...], or without the lanes' axis where it does not depend on them.
        label, units: its two attributes.
        dims: names of the axes after the lanes'.
        per_lane: whether there is an axis over lanes.
    """

    values: Any
    label: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    per_lane: bool = True


class TaskResult(NamedTuple):
    """What an application measures of the lanes of one program.

    Attributes:
        variables: by name, what the Dataset receives.
        figure_arrays: by name arrays [lanes, ...] that only the figure needs.
        coordinates: by name (values, label, units) of the dims that the variables add.
    """

    variables: dict[str, TaskVariable]
    figure_arrays: dict[str, Any] = {}  # noqa: RUF012
    coordinates: dict[str, tuple[Any, str, str]] = {}  # noqa: RUF012


class ShownLane(NamedTuple):
    """The lane that a figure shows: its program, its name, and its part of the figure arrays."""

    lanes: Lanes
    name: str
    figure_arrays: dict[str, Any]


def reconstruct(lane: Lane, x: Batch) -> Float[Array, "batch d_in"]:
    """A lane's reconstruction of samples, [batch, d_in]."""
    return decode(lane.params, encode(lane.params, x, lane.settings), lane.settings)


def psnr(error: Float[Array | np.ndarray, "batch inputs"], peak: float) -> Float[Array, ""]:
    """Peak signal-to-noise ratio of a set of samples, 10 log10(peak^2 / mean squared error), in dB.

    Args:
        error: restored minus clean values.
        peak: the range of clean values.
    """
    return 10 * jnp.log10(peak**2 / jnp.mean(jnp.square(error)))


def span(data: Data) -> float:
    """The range of the training samples' values: the peak of `psnr`."""
    return float(np.ptp(data.train))


def labels_of(data: Data, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training and held-out labels as positions among the classes, and the classes' own numbers.

    Raises:
        UserError: the samples carry no labels, or all the same one.
    """
    if data.train_labels is None or data.heldout_labels is None:
        raise UserError(f"task {task} needs labelled samples: {data.config.dataset} has none; use digits or tfds:mnist")
    classes = np.unique(data.train_labels)
    if not np.isin(data.heldout_labels, classes).all():
        raise UserError(
            f"task {task} needs every held-out class among the training samples: got others; use more samples"
        )
    if len(classes) < 2:
        raise UserError(f"task {task} needs at least two classes: got {len(classes)}; train on more classes")
    return np.searchsorted(classes, data.train_labels), np.searchsorted(classes, data.heldout_labels), classes


def need_images(data: Data, task: str) -> tuple[int, int]:
    """(height, width) of the samples.

    Raises:
        UserError: the samples are no images.
    """
    if data.image_shape is None:
        raise UserError(f"task {task} needs images: {data.config.dataset} holds plain samples; use digits or patches")
    return data.image_shape


def dots(panel: Axes, variable: xr.DataArray, baseline: float | None = None, baseline_name: str = "") -> None:
    """A measure of every cell, best at the top, each seed a dot and the mean a bar; of the best where there are many.

    Seeds without a value, such as those that diverged, are left out; a cell that lacks some says how many it has.

    Args:
        variable: [axes..., seed].
        baseline: a value to draw as a line, named `baseline_name`.
    """
    cells = by_cell(variable.to_dataset(name="score"))
    scores = [(name_of(point) or "all", np.atleast_1d(cell["score"].values)) for point, cell in cells]
    seeds = len(scores[0][1])
    scores = [(name, values[np.isfinite(values)]) for name, values in scores]
    scores = [(name if len(values) == seeds else f"{name} (n={len(values)})", values) for name, values in scores]
    scores = sorted(scores, key=lambda score: np.mean(score[1]) if len(score[1]) else -np.inf)[-MOST_DOTS:]
    for place, (_, values) in enumerate(scores):
        panel.plot(values, np.full(len(values), place), "o", color="tab:blue", ms=4, alpha=0.5, mew=0, label="a seed")
        if len(values):
            panel.plot(np.mean(values), place, "|", color="black", ms=11, mew=1.5, label="mean over seeds")
    panel.set_yticks(range(len(scores)), [name for name, _ in scores], fontsize=7)
    panel.set_ylim(-0.7, len(scores) - 0.3)
    panel.set_title("every cell" if len(cells) <= MOST_DOTS else f"best {MOST_DOTS} of {len(cells)} cells")
    if baseline is not None:
        panel.axvline(baseline, color="tab:red", lw=1, ls="--", label=baseline_name)
    below(panel)


def below(panel: Axes) -> None:
    """A panel's legend below it, where it hides nothing."""
    handles, labels = panel.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    panel.legend([*entries.values()], [*entries], loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


def rows_of_images(panel: Axes, rows: dict[str, Any], shape: tuple[int, int]) -> None:
    """Rows of images, each [count, height * width], named at the left, in the contrast of the row called clean."""
    height, width = shape
    count = len(next(iter(rows.values())))
    picture = np.full((len(rows) * (height + 1) - 1, count * (width + 1) - 1), np.nan)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(np.asarray(images)):
            top, left = row * (height + 1), column * (width + 1)
            picture[top : top + height, left : left + width] = image.reshape(shape)
    low, high = np.quantile(rows["clean"], [0.002, 0.998])
    panel.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    panel.set_yticks([row * (height + 1) + height / 2 for row in range(len(rows))], list(rows))
    panel.set_xticks([])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.tick_params(length=0)

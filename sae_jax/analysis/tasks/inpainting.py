"""Inpainting: a square hole in the middle of an image, filled from the reconstruction of what is around it.

Source: Vincent et al. 2008 (filling in missing inputs is what masking noise trains).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.tasks.base import (
    ShownLane,
    TaskResult,
    TaskVariable,
    dots,
    need_images,
    psnr,
    reconstruct,
    rows_of_images,
    span,
)

SCORE = "inpainting_psnr"
SHOWN = 8


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """PSNR inside the hole of held-out images, filled by every lane and by the mean training image.

    The hole starts as the mean training image and is replaced by the reconstruction again and again, while the
    pixels around it stay as they are.
    """
    shape = need_images(lanes.data, "inpainting")
    hole, peak = hole_of(shape, options.hole), span(lanes.data)
    clean, mean = lanes.data.heldout, lanes.data.train.mean(axis=0)
    holed = np.where(hole[None, :], mean[None, :], clean)

    def fill(lane: Lane, clean: Array, holed: Array) -> tuple[Array, Array]:
        def fill_once(_: Array, x: Array) -> Array:
            return jnp.where(hole[None, :], reconstruct(lane, x), clean)

        filled = jax.lax.fori_loop(0, options.rounds, fill_once, holed)
        return psnr((filled - clean)[:, hole], peak), filled[:SHOWN]

    ratios, examples = lanes.map(fill, clean, holed)
    before = float(psnr((holed - clean)[:, hole], peak))
    label = "PSNR inside the hole of held-out images"
    shown = np.where(hole[None, :], clean.min(), clean)[:SHOWN]
    return TaskResult(
        {
            SCORE: TaskVariable(ratios, f"{label}, filled by the autoencoder", "dB"),
            "inpainting_psnr_mean": TaskVariable(before, f"{label}, filled by the mean image", "dB", per_lane=False),
        },
        figure_arrays={"holed": np.broadcast_to(shown[None], examples.shape), "filled": examples},
    )


def hole_of(shape: tuple[int, int], side: float) -> np.ndarray:
    """Which pixels lie in the hole, [height * width]: a centred square, its side a fraction of the shorter side."""
    size = max(1, round(side * min(shape)))
    hole = np.zeros(shape, bool)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    hole[top : top + size, left : left + size] = True
    return hole.ravel()


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """PSNR of every cell; images with the hole, filled, and whole, of the best lane."""
    figure, panels = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    mean = float(dataset["inpainting_psnr_mean"].mean())
    dots(panels[0], dataset[SCORE], mean, f"the mean image: {mean:.1f}")
    panels[0].set_xlabel("PSNR inside the hole, dB")
    rows = {
        "holed": shown.figure_arrays["holed"],
        "filled": shown.figure_arrays["filled"],
        "clean": shown.lanes.data.heldout[:SHOWN],
    }
    rows_of_images(panels[1], rows, need_images(shown.lanes.data, "inpainting"))
    panels[1].set_title(f"best lane: {shown.name}")
    return figure

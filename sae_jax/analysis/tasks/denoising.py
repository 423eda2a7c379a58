"""Denoising: how much nearer to the clean sample the reconstruction of a noisy one is.

Source: Vincent et al. 2010 (the task).
"""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.cells import DEVIATION, by_cell, name_of, over_seeds
from sae_jax.analysis.channels import MARKERS
from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.tasks.base import (
    ShownLane,
    TaskResult,
    TaskVariable,
    psnr,
    reconstruct,
    rows_of_images,
    span,
)
from sae_jax.data.corruption import corrupt

SCORE = "denoising_psnr"
LEVEL = "noise_level"
SHOWN, MOST_LINES = 8, 12


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """PSNR of every lane's reconstruction of noisy held-out samples, at every noise level."""
    clean, peak = lanes.data.heldout, span(lanes.data)
    # The same noise for every lane, so that lanes compare like with like.
    noisy = np.stack([corrupt(jax.random.key(i), clean, options.corruption, v) for i, v in enumerate(options.noise)])

    def restored(lane: Lane, clean: Array, noisy: Array) -> tuple[Array, Array]:
        def at_level(samples: Array) -> tuple[Array, Array]:
            restored = reconstruct(lane, samples)
            return psnr(restored - clean, peak), restored[:SHOWN]

        return jax.lax.map(at_level, noisy)

    ratios, examples = lanes.map(restored, clean, noisy)
    label = f"PSNR of held-out samples with {options.corruption} noise"
    before = np.array([float(psnr(samples - clean, peak)) for samples in noisy])
    return TaskResult(
        {
            SCORE: TaskVariable(ratios, f"{label}, restored", "dB", (LEVEL,)),
            "denoising_psnr_noisy": TaskVariable(before, f"{label}, as they are", "dB", (LEVEL,), per_lane=False),
        },
        figure_arrays={"noisy": np.broadcast_to(noisy[None, :, :SHOWN], examples.shape), "restored": examples},
        coordinates={LEVEL: (np.asarray(options.noise), f"level of the {options.corruption} noise", "1")},
    )


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """PSNR against the noise level for every cell; clean, noisy and restored samples of the best lane."""
    shape = shown.lanes.data.image_shape
    figure, panels = plt.subplots(1, 1 + bool(shape), figsize=(14 if shape else 7.5, 4.2), layout="constrained")
    curves, *pictures = np.atleast_1d(panels)
    levels = dataset[LEVEL].values
    cells = sorted(by_cell(dataset), key=lambda cell: -float(cell[1][SCORE].mean()))
    for place, (point, cell) in enumerate(cells[:MOST_LINES]):
        colour = plt.get_cmap("viridis")(0.9 * place / max(len(cells[:MOST_LINES]) - 1, 1))
        spread = over_seeds(cell[SCORE])
        look = {"ms": 3, "lw": 1.2, "elinewidth": 0.8, "capsize": 1.5, "color": colour, "marker": MARKERS[place % 4]}
        curves.errorbar(levels, spread.mean, spread.deviation, label=name_of(point) or "restored", **look)
    noisy = dataset["denoising_psnr_noisy"]
    noisy = noisy.mean([dim for dim in noisy.dims if dim != LEVEL])
    curves.plot(levels, noisy, "k--", lw=1, label="as they are")
    curves.set(xlabel=dataset[LEVEL].attrs["long_name"], ylabel="PSNR, dB", title="restored held-out samples")
    seeds = dataset.sizes["seed"]
    means = f"mean and {DEVIATION}\nover {seeds} seeds" if seeds > 1 else "one seed"
    curves.legend(fontsize=7, title=means, title_fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    if shape:
        middle = len(levels) // 2
        rows = {
            "clean": shown.lanes.data.heldout[:SHOWN],
            "noisy": shown.figure_arrays["noisy"][middle],
            "restored": shown.figure_arrays["restored"][middle],
        }
        rows_of_images(pictures[0], rows, shape)
        pictures[0].set_title(f"best lane at level {levels[middle]:g}: {shown.name}")
    return figure

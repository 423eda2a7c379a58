"""Arrows r(x) - x of a denoising and of a contractive autoencoder point to the curve that the samples lie on.

Vincent et al. 2010, "Stacked denoising autoencoders", the figure of the manifold learning perspective; Alain and Bengio
2014, "What regularized auto-encoders learn from the data generating distribution", the vector field around a spiral and
the theorem behind it: under little Gaussian noise of variance sigma^2 the best r(x) - x is sigma^2 grad log p. With p
the density of the corrupted samples this is exact (Miyasawa 1961) and known here, so the arrows are held against it.

    python -m experiments.reproduce manifold

About 50 seconds on 2 cores. 5,000 samples of a spiral of two turns and radius 14, without jitter; the noise's standard
deviation is 1. 128 sigmoid units, linear outputs, squared error, Adam at .02, 20,000 steps, 3 seeds. Arrows start at
distances of .3 to 2 from the curve, on both sides, its two ends left out. Expect a cosine of .99 with the direction to
the nearest point, .5 without noise, and arrows .95 times as long as sigma^2 grad log p.

The contractive one has tied weights and the penalty's weight 1: only the encoder is penalised, and an untied decoder
undoes the contraction (cosines of .5 to .7, with or without weight decay). Its arrows point to the curve too, with a
cosine of .98, but so do those of tied sigmoids without the penalty after as many steps (.997; after half of them .62
against .97), though these are a fifth as long. What the penalty does is told by the encoder's Jacobian: expect it half
as long across the curve as along it, and nine tenths without the penalty.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.spatial.distance import cdist

from experiments.reproduce.checks import RECALLED, Source, expectation, order
from experiments.reproduce.report import Options, Report
from sae_jax import as_data, decode, encode, lane_settings, sweep

SOURCE = "Vincent et al. 2010; Alain and Bengio 2014"
ARROWS = Source("Vincent et al. 2010, the manifold perspective; Alain and Bengio 2014, the spiral", RECALLED)
CONTRACTION = Source("Rifai et al. 2011, on the directions that are contracted", RECALLED)
THEOREM = Source("Alain and Bengio 2014, the theorem; Miyasawa 1961", RECALLED)
RADIUS, TURNS, NOISE = 14.0, 2.0, 1.0
CONTRACTIVE = 1.0
NEAREST, FARTHEST = 0.3 * NOISE, 2.0 * NOISE
CURVE_POINTS = 2001
GRID = 29


def run(options: Options) -> Report:
    """Train a denoising, a contractive and a plain one, and measure their arrows beside the curve."""
    rng = np.random.default_rng(0)
    samples, curve = spiral(rng.uniform(size=5000)), spiral(np.linspace(0, 1, CURVE_POINTS))
    points, to_curve = beside(curve, rng, 2000)
    seeds, steps, units, batch, rate = (1, 2000, 32, 64, 0.05) if options.quick else (3, 20_000, 128, 256, 0.02)
    shared: dict[str, Any] = {
        "data": as_data(samples),
        "seeds": seeds,
        "d_hidden": units,
        "output": "linear",
        "batch_size": batch,
        "steps": steps,
        "beta": 0.0,
        "weight_decay": 0.0,
        "learning_rate": rate,
    }
    untied = sweep(**shared, corruption="gaussian", noise=[0.0, NOISE])
    tied = sweep(**shared, tied=True, contractive=[0.0, CONTRACTIVE])
    trained = {
        "denoising": untied.sel(noise=NOISE),
        "contractive": tied.sel(contractive=CONTRACTIVE),
        "plain": untied.sel(noise=0.0),
        "tied": tied.sel(contractive=0.0),
    }
    ways = {name: [arrows(lanes.isel(seed=i), points) for i in range(seeds)] for name, lanes in trained.items()}
    cosines = {name: [cosine(way, to_curve) for way in of_seeds] for name, of_seeds in ways.items()}
    best = best_arrows(points, curve)
    slopes = [np.sum(way * best) / np.sum(best**2) for way in ways["denoising"]]
    across = {
        name: [contraction(trained[name].isel(seed=i), curve) for i in range(seeds)] for name in ("contractive", "tied")
    }
    checks = [
        order(
            "cosine with the direction to the curve, denoising",
            "arrows point to it",
            ARROWS,
            cosines["denoising"],
            low=0.7 if options.quick else 0.9,
            why="within 26 degrees on average",
        )
    ]
    # The quick size's little training brings out the directions only.
    if not options.quick:
        checks += [
            expectation(
                "cosine with the direction to the curve, trained without noise",
                "less",
                cosines["plain"],
                high=0.7,
                why="the control",
            ),
            order(
                "|dh/dx| across the curve over along it, contractive",
                "it contracts across the samples' manifold, not along it",
                CONTRACTION,
                across["contractive"],
                high=0.7,
                why="by a third at least",
            ),
            expectation(
                "|dh/dx| across the curve over along it, tied weights without the penalty",
                "1",
                across["tied"],
                0.8,
                1.1,
                why="the control: nothing but the reconstruction tells the directions apart",
            ),
            order(
                "slope of r(x) - x on sigma^2 grad log p, denoising",
                "1",
                THEOREM,
                slopes,
                0.9,
                1.1,
                why="exact for the best r; 128 units after 20,000 steps are near it",
            ),
        ]
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.8), layout="constrained")
    for panel, name in zip(panels, ("denoising", "contractive"), strict=True):
        _draw(panel, trained[name].isel(seed=0), samples, curve)
        panel.set_title(f"r(x) - x, {name}: mean cosine {cosines[name][0]:.3f}")
    figure.suptitle("dots: samples; arrows at full length, darker nearer to the curve", fontsize=9)
    return Report(checks, figure)


def spiral(where: np.ndarray) -> np.ndarray:
    """Points of the spiral, [n, 2] float32, for where in [0, 1]; equally spaced ones lie about equally far apart."""
    angle = 2 * np.pi * TURNS * np.sqrt((where + 0.06) / 1.06)
    radius = RADIUS * angle / (2 * np.pi * TURNS)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def beside(curve: np.ndarray, rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Points at NEAREST to FARTHEST from the curve, on both sides of it, and the way from each to its nearest point."""
    along = np.gradient(curve, axis=0)
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    # Near its two ends the corrupted samples' density also leans inwards along the curve.
    ends = CURVE_POINTS // 50
    feet = rng.integers(ends, CURVE_POINTS - ends, size=number)
    distances = rng.uniform(NEAREST, FARTHEST, size=number) * rng.choice([-1, 1], size=number)
    points = (curve[feet] + distances[:, None] * normals[feet]).astype(np.float32)
    return points, curve[np.argmin(cdist(points, curve), axis=1)] - points


def best_arrows(points: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """sigma^2 grad log p, which is the mean of the samples that a corrupted one may come from, less that one."""
    exponents = -(cdist(points, curve) ** 2) / (2 * NOISE**2)
    chances = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return chances @ curve / chances.sum(axis=1, keepdims=True) - points


def arrows(lane: xr.Dataset, points: np.ndarray) -> np.ndarray:
    """r(x) - x of one lane, [n, 2]."""
    names = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
    params = {name: jnp.asarray(lane[name].values) for name in names}
    settings = lane_settings(output="linear")
    return np.asarray(decode(params, encode(params, jnp.asarray(points), settings), settings)) - points


def contraction(lane: xr.Dataset, curve: np.ndarray) -> float:
    """Median over the curve, its ends left out, of |dh/dx n| / |dh/dx t|, n across and t along it; sigmoid codes."""
    inside = slice(CURVE_POINTS // 50, -(CURVE_POINTS // 50))
    along = np.gradient(curve, axis=0)[inside]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    weight = lane["encoder_weight"].values
    params = {name: jnp.asarray(lane[name].values) for name in ("encoder_weight", "encoder_bias")}
    codes = np.asarray(encode(params, jnp.asarray(curve[inside]), lane_settings()))
    lengths = [
        np.linalg.norm(codes * (1 - codes) * (way @ weight.T), axis=1)
        for way in (np.stack([-along[:, 1], along[:, 0]], axis=1), along)
    ]
    return float(np.median(lengths[0] / lengths[1]))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over the rows of the cosine between the two."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean(np.sum(first * second, axis=1) / lengths))


def _draw(panel: Axes, lane: xr.Dataset, samples: np.ndarray, curve: np.ndarray) -> None:
    ticks = np.linspace(-RADIUS - FARTHEST, RADIUS + FARTHEST, GRID)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(ticks, ticks)], axis=1).astype(np.float32)
    distances = cdist(grid, curve).min(axis=1)
    near = distances < 1.5 * FARTHEST
    x, y = grid[near].T
    along_x, along_y = arrows(lane, grid[near]).T
    panel.scatter(samples[::10, 0], samples[::10, 1], s=6, color="tab:orange", alpha=0.6, lw=0)
    panel.quiver(
        x,
        y,
        along_x,
        along_y,
        distances[near],
        cmap="viridis",
        clim=(0, 1.8 * FARTHEST),
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.003,
    )
    panel.set(aspect="equal", xticks=[], yticks=[])

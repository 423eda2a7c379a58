"""Sparse coding takes features out of superposition, in a band of L1 coefficients and from enough units on.

Sharkey, Braun and Millidge 2022, "Taking features out of superposition with sparse autoencoders": mean max cosine
similarity of the true features with decoder rows, over the L1 coefficient and the ratio of units to features. Theirs
are 512 features in 256 dimensions; these are 128 in 64, three of which fire on a sample, with strengths around .5.

    python -m experiments.reproduce sharkey-mmcs

About a quarter of an hour on 2 cores: one sweep of 17 coefficients x 8 ratios x 3 seeds. Expect a similarity above .95
in a band of coefficients from as many units as features on, a fall on both sides of it, and less with half as many.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from experiments.reproduce.checks import SECONDARY, Source, order
from experiments.reproduce.report import Options, Report
from sae_jax import DataConfig, sweep

SOURCE = "Sharkey et al. 2022"
FIGURE = Source("Sharkey et al. 2022, figure 3", SECONDARY)
FEATURES, INPUTS = 128, 64
DATA = f"superposition:features={FEATURES},inputs={INPUTS},p={3 / FEATURES:.9g},mean=.5,std=.29"
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
L1 = tuple(np.geomspace(1e-3, 1.0, 17).tolist())


def run(options: Options) -> Report:
    """Train the whole grid at once, and look for the band."""
    ratios = RATIOS[1:4:2] if options.quick else RATIOS
    dataset = sweep(
        DataConfig(dataset=DATA),
        "relu",
        l1=L1[::4] if options.quick else L1,
        d_hidden=[round(FEATURES * ratio) for ratio in ratios],
        seeds=1 if options.quick else 3,
        rows="unit",
        steps=800 if options.quick else 4000,
        batch_size=256,
        learning_rate=3e-3,
        final_learning_rate=0.1,
    )
    lanes = dataset["truth_mmcs"].transpose("l1", "d_hidden", "seed")
    means, enough = lanes.mean("seed"), lanes.sel(d_hidden=FEATURES)
    best = int(np.nanargmax(enough.mean("seed").values))
    half = lanes.sel(d_hidden=FEATURES // 2)
    few = half[int(np.nanargmax(half.mean("seed").values))]
    high = 0.8 if options.quick else 0.95
    checks = [
        order(
            "similarity at the best L1, as many units as features",
            "near 1",
            FIGURE,
            enough[best],
            low=high,
            why="the highest step of the published colours",
        ),
        order(
            "similarity at the least L1 less the best",
            "less",
            FIGURE,
            enough[0] - enough[best],
            high=-0.2,
            why="the band has a lower end: without a penalty directions are mixed",
        ),
        order(
            "similarity at the largest L1 less the best",
            "less",
            FIGURE,
            enough[-1] - enough[best],
            high=-0.02,
            why="the band has an upper end",
        ),
        order(
            "similarity with half as many units, at their own best L1, less that",
            "less",
            FIGURE,
            few - enough[best],
            high=-0.1,
            why="half of the features have no unit of their own",
        ),
    ]
    figure, panel = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    image = panel.pcolormesh(means.values, cmap="viridis", vmin=0, vmax=1)
    panel.set(xticks=np.arange(len(ratios)) + 0.5, xticklabels=[f"{ratio:g}" for ratio in ratios])
    panel.set(yticks=np.arange(len(means)) + 0.5, yticklabels=[f"{l1:.2g}" for l1 in means["l1"].values])
    panel.set(xlabel="units per feature", ylabel="L1 coefficient", title="mean max cosine similarity")
    figure.colorbar(image)
    return Report(checks, figure)

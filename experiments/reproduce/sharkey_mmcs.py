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

from experiments.reproduce.report import Check, Options, Report
from sae_jax import DataConfig, sweep

SOURCE = "Sharkey et al. 2022"
FEATURES, INPUTS = 128, 64
DATA = f"superposition:features={FEATURES},inputs={INPUTS},p={3 / FEATURES:.9g},mean=.5,std=.29"
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
L1 = tuple(np.geomspace(1e-3, 1.0, 17).tolist())


def run(options: Options) -> Report:
    """Train the whole grid at once, and look for the band."""
    ratios = RATIOS[1:6:2] if options.quick else RATIOS
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
    found = dataset["truth_mmcs"].mean("seed").transpose("l1", "d_hidden")
    enough, few = found.sel(d_hidden=FEATURES), found.sel(d_hidden=FEATURES // 2)
    best = int(np.nanargmax(enough.values))
    high = 0.8 if options.quick else 0.95
    checks = [
        Check("similarity at the best L1, as many units as features", "near 1", float(enough[best]), high),
        Check("the best L1", "inside", float(enough["l1"][best]), 3e-3, 0.6),
        Check("similarity at the least L1", "low", float(enough[0]), high=0.8),
        Check("similarity at the largest L1 less the best", "< 0", float(enough[-1] - enough[best]), high=-0.02),
        Check(
            "similarity at the best L1, half as many units, less that",
            "< 0",
            float(few.max() - enough[best]),
            high=-0.1,
        ),
    ]
    figure, panel = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    image = panel.pcolormesh(found.values, cmap="viridis", vmin=0, vmax=1)
    panel.set(xticks=np.arange(len(ratios)) + 0.5, xticklabels=[f"{ratio:g}" for ratio in ratios])
    panel.set(yticks=np.arange(len(found)) + 0.5, yticklabels=[f"{l1:.2g}" for l1 in found["l1"].values])
    panel.set(xlabel="units per feature", ylabel="L1 coefficient", title="mean max cosine similarity")
    figure.colorbar(image)
    return Report(checks, figure)

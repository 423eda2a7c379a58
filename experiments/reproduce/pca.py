"""A linear undercomplete autoencoder learns the subspace of the leading principal components.

Baldi and Hornik 1989, "Neural networks and principal component analysis": the squared error of a linear autoencoder has
no minimum but where it projects onto the principal subspace.

    python -m experiments.reproduce pca

About 15 seconds on 2 cores. scikit-learn's digits, 10 linear units, no penalty, full-batch L-BFGS, 3 seeds. Expect a
largest principal angle below 1 degree and PCA's own error within 0.1%.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from experiments.reproduce.checks import RECALLED, Source, expectation, order
from experiments.reproduce.report import Options, Report
from sae_jax import DataConfig, load, sweep

SOURCE = "Baldi and Hornik 1989"
THEOREM = Source("Baldi and Hornik 1989, the theorem", RECALLED)
UNITS = 10


def run(options: Options) -> Report:
    """Train, and compare the decoder's row space and the error with PCA's on the training samples."""
    data = load(DataConfig(dataset="digits"))
    trained = sweep(
        data,
        seeds=1 if options.quick else 3,
        d_hidden=UNITS,
        activation="linear",
        output="linear",
        optimizer="lbfgs",
        estimator="batch",
        steps=150 if options.quick else 400,
        beta=0.0,
        weight_decay=0.0,
    )
    principal = PCA(UNITS).fit(data.train)
    error = np.mean(np.sum((data.train - principal.inverse_transform(principal.transform(data.train))) ** 2, axis=1))
    angles = [np.degrees(subspace_angles(rows.T, principal.components_.T)) for rows in trained["decoder_weight"].values]
    ours = trained["loss"].isel(step=-1).values
    worst = 20.0 if options.quick else 1.0
    checks = [
        order(
            "largest principal angle, degrees",
            "0",
            THEOREM,
            np.max(angles, axis=1),
            high=worst,
            why="what 400 iterations leave of the slowest direction; a wrong one would be at 90",
        ),
        expectation(
            "training error over PCA's",
            "1",
            ours / error,
            0.9999,
            1.02 if options.quick else 1.001,
            why="not below it but by float32's rounding; above it by what the angle costs, its square",
        ),
    ]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for curve in trained["loss"]:
        panels[0].plot(curve["step"], curve / error - 1)
    panels[0].set(yscale="log", title="excess of the error over PCA's", xlabel="L-BFGS iteration")
    panels[1].bar(np.arange(UNITS), np.sort(np.max(angles, axis=0))[::-1])
    panels[1].set(title="principal angles, degrees", xlabel="rank")
    return Report(checks, figure)

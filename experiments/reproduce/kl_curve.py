"""The KL penalty over the mean activation, for rho = .2 and .05, with its slopes.

Ng's CS294A notes, section 3, the figure of KL(rho || rho_hat) for rho = .2; here with the slope and with rho = .05
beside it. Tutorials often say that the penalty rises more steeply above rho than below it. For rho < 1/2 it is the
other way round: at the same distance the zero side costs more, 1.97 times as much at rho = .05 and a distance of .025.

    python -m experiments.reproduce kl-curve

About 3 seconds on 2 cores. Expect the ratio 1.97 and no distance at which the zero side is the cheaper one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from experiments.reproduce.checks import expectation
from experiments.reproduce.report import Options, Report
from sae_jax import kl_divergence
from sae_jax.models.kl import kl_slope

SOURCE = "Ng, CS294A notes, section 3"
TARGETS = (0.2, 0.05)


def run(options: Options) -> Report:
    """Measure the asymmetry and draw the curves."""
    steeper, missed = [], []
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    with jax.enable_x64(True):
        grid = jnp.linspace(0.001, 0.999, 101 if options.quick else 1999)
        for rho in TARGETS:
            value, slope = kl_divergence(jnp.float64(rho), grid), kl_slope(jnp.float64(rho), grid)
            panels[0].plot(grid, value, label=f"rho = {rho:g}")
            panels[1].plot(grid, slope, label=f"rho = {rho:g}")
            distance = np.linspace(0, rho, 101)[1:-1]
            below, above = (np.asarray(kl_divergence(jnp.float64(rho), rho + sign * distance)) for sign in (-1, 1))
            steeper.append(float(np.mean(below > above)))
            missed.append(abs(float(grid[int(jnp.argmin(value))]) - rho))
        pair = kl_divergence(jnp.float64(0.05), jnp.asarray([0.025, 0.075]))
        step = float(grid[1] - grid[0])
    checks = [
        expectation(
            "share of distances at which the zero side costs more, rho .2 and .05, the less",
            "1",
            min(steeper),
            low=1,
            why="a law: it holds at every distance",
        ),
        expectation(
            "distance of the least penalty from rho, rho .2 and .05, the more",
            "0",
            max(missed),
            high=step,
            why="a step of the grid",
        ),
        expectation(
            "rho .05: penalty at .025 over penalty at .075",
            "1.972",
            float(pair[0] / pair[1]),
            1.9715,
            1.9725,
            why="by hand, .0099812 / .0050616, to its last digit",
        ),
    ]
    panels[0].set(title="KL(rho || rho_hat)", xlabel="mean activation rho_hat", ylabel="nats", ylim=(0, 3))
    panels[1].set(title="slope", xlabel="mean activation rho_hat", ylim=(-20, 20))
    for panel in panels:
        panel.legend(frameon=False)
        panel.grid(alpha=0.25)
    return Report(checks, figure)

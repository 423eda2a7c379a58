"""Features in superposition are recovered where they are sparse, and only there.

Elhage et al. 2022, "Toy models of superposition": more features than dimensions are held where they fire rarely, and
as many as dimensions where they do not (the phase picture). Its section on compressed sensing bounds what can be taken
out again: m dimensions hold n features that fire with probability p if m is at least about n p log(1 / p). The paper
trains the model that puts features together; here directions are given, and a dictionary is to find them.

    python -m experiments.reproduce elhage-superposition

About two minutes on 2 cores: BatchTopK with as many units as features and their true L0, n p; 32, 64 and 128 features
in 32 dimensions at six probabilities, three seeds. Expect an MCC near 1 at every probability for as many
features as dimensions; for more of them a fall from there to what random directions have, at a probability that makes
m / (n p log(1 / p)) about 1.6 whatever n is.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from experiments.reproduce.checks import RECALLED, Source, order
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import DATA, TRAINING
from sae_jax import DataConfig, sweep

SOURCE = "Elhage et al. 2022"
PHASES = Source("Elhage et al. 2022, the phase picture", RECALLED)
SENSING = Source("Elhage et al. 2022, on compressed sensing", RECALLED)
INPUTS = 32
RATIOS = (1, 2, 4)
PROBABILITIES = tuple(np.geomspace(0.02, 0.4, 6).tolist())
HALFWAY = 0.75


def run(options: Options) -> Report:
    """Train every number of features at every probability, and find where each is lost."""
    probabilities = np.array(PROBABILITIES[::2] if options.quick else PROBABILITIES)
    cells = [(INPUTS * ratio, p) for ratio in RATIOS for p in probabilities]
    dataset = sweep(
        DataConfig(),
        "batch_topk",
        zip=("dataset", "target_l0", "d_hidden"),
        dataset=[f"{DATA}:features={number},inputs={INPUTS},p={p:.9g}" for number, p in cells],
        **TRAINING | {"target_l0": [number * p for number, p in cells], "d_hidden": [number for number, _ in cells]},
        seeds=1 if options.quick else 3,
        steps=800 if options.quick else 2000,
    )
    mcc = dataset["truth_mcc"].transpose(..., "seed").values.reshape(len(RATIOS), len(probabilities), -1)
    curves = dict(zip(RATIOS, mcc.mean(axis=2), strict=True))
    lost = np.array([crossing(probabilities, curves[ratio]) for ratio in RATIOS[1:]])
    bounds = bound(np.array(RATIOS[1:]), lost).tolist()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for ratio, lanes in zip(RATIOS, mcc, strict=True):
        bars = lanes.std(axis=1, ddof=1) if lanes.shape[1] > 1 else None
        for panel, x in zip(panels, (probabilities, bound(ratio, probabilities)), strict=True):
            panel.errorbar(x, lanes.mean(axis=1), bars, marker="o", label=f"{ratio * INPUTS} features")
    panels[0].set(xlabel="probability p of a feature to fire", ylabel="MCC", ylim=(0, 1.03))
    panels[1].set(xlabel="m / (n p log(1 / p))")
    for panel, ticks in zip(panels, ((0.02, 0.05, 0.1, 0.2, 0.4), (0.5, 1, 2, 4, 8)), strict=True):
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        panel.grid(alpha=0.25)
    panels[0].legend(frameon=False, title=f"n, in m = {INPUTS} dimensions")
    high = 0.75 if options.quick else 0.9
    checks = [
        order(
            "MCC, 32 features in 32 dimensions, at the p where it is least",
            "features of any sparsity are held",
            PHASES,
            mcc[0, int(np.argmin(curves[1]))],
            low=high,
            why="what counts as found; the least p, where features are held, gives .94 to .99",
        )
    ]
    for row, ratio in enumerate(RATIOS[1:], 1):
        words = f"{ratio * INPUTS} features"
        checks += [
            order(f"MCC, {words}, the least p", "held where sparse", PHASES, mcc[row, 0], high, why="as above"),
            order(
                f"MCC, {words}, the largest p",
                "not held where dense",
                PHASES,
                mcc[row, -1],
                high=0.6,
                why="nearer to the .43 of random directions than to 1",
            ),
        ]
    checks += [
        order(
            "m / (n p log(1 / p)) where 64 features are lost",
            "about 1",
            SENSING,
            bounds[0],
            0.5,
            4,
            why="the bound holds up to a constant, which is not stated: a factor of 2 to both sides of 1 to 2",
        ),
        order(
            "its ratio, 128 over 64 features",
            "1",
            SENSING,
            bounds[1] / bounds[0],
            0.6,
            1.6,
            why="half a step of p between neighbouring measurements",
        ),
    ]
    return Report(checks, figure)


def bound(ratio: np.ndarray | float, p: np.ndarray) -> np.ndarray:
    """m / (n p log(1 / p)) of n / m = ratio."""
    return -1 / (ratio * p * np.log(p))


def crossing(probabilities: np.ndarray, curve: np.ndarray) -> float:
    """The probability at which a falling curve first passes HALFWAY, linear in log p; NaN where it never does."""
    below = np.flatnonzero(curve < HALFWAY)
    if not len(below) or not below[0]:
        return np.nan
    some = slice(below[0] - 1, below[0] + 1)
    return float(np.exp(np.interp(-HALFWAY, -curve[some], np.log(probabilities[some]))))

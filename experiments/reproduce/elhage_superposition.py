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

from experiments.reproduce.report import Check, Options, Report
from experiments.reproduce.synthetic import DATA, TRAINING
from sae_jax import DataConfig, sweep

SOURCE = "Elhage et al. 2022"
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
    found = dataset["truth_mcc"].transpose(..., "seed").values.reshape(len(RATIOS), len(probabilities), -1)
    curves = dict(zip(RATIOS, found.mean(axis=2), strict=True))
    lost = np.array([crossing(probabilities, curves[ratio]) for ratio in RATIOS[1:]])
    bounds = bound(np.array(RATIOS[1:]), lost).tolist()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for ratio, lanes in zip(RATIOS, found, strict=True):
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
    checks = [Check("MCC, 32 features, the least of all p", "near 1", float(curves[1].min()), high)]
    for ratio, measured in zip(RATIOS[1:], bounds, strict=True):
        words, curve = f"{ratio * INPUTS} features", curves[ratio]
        checks += [
            Check(f"MCC, {words}, the least p", "near 1", float(curve[0]), high),
            Check(f"MCC, {words}, the largest p", "lost", float(curve[-1]), high=0.6),
            Check(f"m / (n p log(1 / p)) where {words} are lost", "about 1", measured, 0.5, 4),
        ]
    checks.append(Check("its ratio, 128 over 64 features", "1", bounds[1] / bounds[0], 0.6, 1.6))
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

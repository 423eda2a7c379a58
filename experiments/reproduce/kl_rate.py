"""Does the KL penalty on firing rates find more than steering L0 as a whole, at equal L0?

Ng's penalty holds every unit at a rate that is set in advance; JumpReLU and BatchTopK hold their sum alone. Nothing is
published on this. Where all features fire equally often the rates are right, where they do not they are wrong.

    python -m experiments.reproduce kl-rate

About three minutes on 2 cores: JumpReLU and BatchTopK with an L0 of 3.2, and with rates of .05 for each of 64 units, on
features that fire with probability .05, or from .2 down to .01 by Zipf's law, five seeds. Expect a small loss on the
first, a large one on the second, and no dead units.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from experiments.reproduce.checks import expectation
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import DATA, MEASURES, MODELS, legend_below, mean_of, seeds_of, trained

SOURCE = "a question of our own; Ng, CS294A notes, section 3"
PAIRS = {
    "jumprelu": ("jumprelu:target_l0=3.2", "jumprelu:target_rate=0.05,l0=0"),
    "batch_topk": ("batch_topk:target_l0=3.2", "batch_topk:target_l0=3.2,target_rate=0.05"),
}
FEATURES = {"equal rates": DATA, "Zipf's rates": f"{DATA}:firing=zipf,p_max=.2,p_min=.01"}
SHOWN = ("truth_mcc", "truth_f1", "eval_explained_variance")


def run(options: Options) -> Report:
    """Train pairs at equal L0 on both kinds of features, and compare."""
    names = [name for pair in PAIRS.values() for name in pair]
    labels = [f"{MODELS[model]}, {goal}" for model in PAIRS for goal in ("L0 steered", "KL on firing rates")]
    figure, panels = plt.subplots(1, len(FEATURES), figsize=(9.5, 3.4), layout="constrained", sharey=True)
    checks, strays, dead = [], [], []
    for panel, (words, dataset) in zip(panels, FEATURES.items(), strict=True):
        run = trained(options, names, dataset)
        for i, (name, label) in enumerate(zip(names, labels, strict=True)):
            heights = [mean_of(run, measure, model=name) for measure in SHOWN]
            panel.bar(np.arange(len(SHOWN)) + 0.2 * i, heights, 0.18, label=label)
        panel.set(title=words, xticks=np.arange(len(SHOWN)) + 0.3, xticklabels=[MEASURES[name] for name in SHOWN])
        for architecture, (without, rates) in PAIRS.items():
            plain, held = (seeds_of(run, "truth_mcc", model=name) for name in (without, rates))
            strays.append(mean_of(run, "eval_l0", model=rates) / mean_of(run, "eval_l0", model=without) - 1)
            dead.append(mean_of(run, "eval_dead_fraction", model=rates))
            right = dataset == DATA
            checks.append(
                expectation(
                    f"{words}, {MODELS[architecture]}: MCC with rates less MCC without",
                    "near 0" if right else "below 0",
                    held - plain,
                    -0.05 if right else -0.2,
                    0.005 if right or options.quick else -0.03,
                    why="rates that are right cost little and bring nothing"
                    if right
                    else "rates that are wrong cost features, but not a fifth of them",
                )
            )
    far = max(strays, key=abs)
    checks += [
        expectation(
            "L0 with rates over L0 without, less 1, where it is farthest from 0",
            "0",
            far,
            *((-0.2, 0.2) if options.quick else (-0.1, 0.1)),
            why="what is compared must have about as many codes on a sample",
        ),
        expectation("dead share with rates, the largest", "0", max(dead), high=0.02, why="one unit of 64"),
    ]
    legend_below(figure)
    return Report(checks, figure)

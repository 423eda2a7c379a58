"""An L1 penalty makes codes too small; gates and thresholds do not.

Rajamanoharan et al. 2024a, section 3 (shrinkage under L1), and 2024b: magnitudes that the penalty does not touch are
not shrunk. Measured on samples whose true magnitudes are known, as the slope of reconstructed against true ones. In
superposition no dictionary has a slope of 1: of 64 directions in 32 dimensions each has a part in the others.

    python -m experiments.reproduce shrinkage

About a minute on 2 cores. ReLU under L1, Gated and JumpReLU at an L0 of 2, 3 and 4, five seeds. Expect slopes below .7
of ReLU and above .8 of the others, at every L0.
"""

from __future__ import annotations

import numpy as np

from experiments.reproduce.checks import RECALLED, Source, order
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import against_l0, seeds_of, trained

SOURCE = "Rajamanoharan et al. 2024a, 2024b"
SHRINKAGE = Source("Rajamanoharan et al. 2024a, section 3, and 2024b", RECALLED)
L0 = (2.0, 3.0, 4.0)


def run(options: Options) -> Report:
    """Train at equal L0 and compare the slopes."""
    targets = L0[1:2] if options.quick else L0
    dataset = trained(options, ("relu", "gated", "jumprelu"), target_l0=targets)
    slopes = {
        name: [seeds_of(dataset, "truth_shrinkage", model=name, target_l0=l0) for l0 in targets]
        for name in dataset["model"].values
    }
    checks = [
        order(
            "slope, ReLU with L1, the L0 where it is largest",
            "below 1",
            SHRINKAGE,
            max(slopes["relu"], key=np.mean),
            high=0.7,
            why="a tenth below what the others must reach",
        )
    ]
    for name, words in (("gated", "Gated"), ("jumprelu", "JumpReLU")):
        checks.append(
            order(
                f"slope, {words}, the L0 where it is least",
                "1",
                SHRINKAGE,
                min(slopes[name], key=np.mean),
                low=0.8,
                why="in superposition each direction has a part in the others, so 1 cannot be reached",
            )
        )
    return Report(checks, against_l0(dataset, ("truth_shrinkage", "eval_explained_variance")))

"""An L1 penalty makes codes too small; gates and thresholds do not.

Rajamanoharan et al. 2024a, section 3 (shrinkage under L1), and 2024b: magnitudes that the penalty does not touch are
not shrunk. Measured on samples whose true magnitudes are known, as the slope of reconstructed against true ones. In
superposition no dictionary has a slope of 1: of 64 directions in 32 dimensions each has a part in the others.

    python -m experiments.reproduce shrinkage

About a minute on 2 cores. ReLU under L1, Gated and JumpReLU at an L0 of 2, 3 and 4, five seeds. Expect slopes below .7
of ReLU and above .8 of the others, at every L0.
"""

from __future__ import annotations

from experiments.reproduce.report import Check, Options, Report
from experiments.reproduce.synthetic import against_l0, mean_of, trained

SOURCE = "Rajamanoharan et al. 2024a, 2024b"
L0 = (2.0, 3.0, 4.0)


def run(options: Options) -> Report:
    """Train at equal L0 and compare the slopes."""
    targets = L0[1:2] if options.quick else L0
    dataset = trained(options, ("relu", "gated", "jumprelu"), target_l0=targets)
    checks = []
    for l0 in targets:
        slopes = {
            name: mean_of(dataset, "truth_shrinkage", model=name, target_l0=l0) for name in dataset["model"].values
        }
        checks += [
            Check(f"slope at an L0 of {l0:g}, ReLU with L1", "below 1", slopes["relu"], high=0.7),
            Check(f"slope at an L0 of {l0:g}, Gated", "1", slopes["gated"], low=0.8),
            Check(f"slope at an L0 of {l0:g}, JumpReLU", "1", slopes["jumprelu"], low=0.8),
        ]
    return Report(checks, against_l0(dataset, ("truth_shrinkage", "eval_explained_variance")))

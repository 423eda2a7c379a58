"""Nested prefixes keep parents of a hierarchy in units of their own, which children absorb in a plain dictionary.

Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders": on language models Matryoshka
absorbs a tenth of what BatchTopK does at equal L0, .03 to .05 against .3 and more by SAEBench's measure, and explains
a little less. On their toy tree it recovers the parents. Here absorption is measured against the truth: the share of a
parent's samples on which its unit is silent and that of one of its children fires, so that orders are to be compared.

    python -m experiments.reproduce matryoshka-absorption

About two minutes on 2 cores: 80 features in 40 dimensions, 16 of them parents of four children each, of which one
fires at most, and never without its parent; 3.6 fire on a sample. At an L0 of 3, 4 and 5, five seeds. Expect less than
a third of the absorption at every L0, a larger F1, an explained variance that is a hundredth or two lower, and an MCC
that is larger at an L0 of 3 and smaller at 5.
"""

from __future__ import annotations

import numpy as np

from experiments.reproduce.checks import PRIMARY, RECALLED, Source, expectation, order
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import DATA, against_l0, seeds_of, trained

SOURCE = "Bussmann et al. 2025"
ABSORPTION = Source("Bussmann et al. 2025, absorption by SAEBench's measure on Gemma-2-2B", RECALLED)
COST = Source("Bussmann et al. 2025, abstract: a minor tradeoff with reconstruction", PRIMARY)
FEATURES = 80
TREE = f"{DATA}:features={FEATURES},inputs=40,firing=zipf,p_max=.3,p_min=.02,exponent=.5,roots=16,branching=4,depth=1"
PLAIN, NESTED = "batch_topk", "matryoshka"
L0 = (3.0, 4.0, 5.0)
COMPARED = ("truth_absorption", "truth_f1", "truth_mcc", "eval_explained_variance")


def run(options: Options) -> Report:
    """Train both at equal L0 and compare what children's units absorb."""
    targets = L0[:1] if options.quick else L0
    dataset = trained(options, (PLAIN, NESTED), TREE, d_hidden=FEATURES, target_l0=targets)
    plain, nested = (
        {
            name: np.array([seeds_of(dataset, name, model=model, target_l0=l0) for l0 in targets])
            for name in (*COMPARED, "eval_l0")
        }
        for model in (PLAIN, NESTED)
    )
    gain = nested["truth_f1"] - plain["truth_f1"]
    cost = plain["eval_explained_variance"] - nested["eval_explained_variance"]
    checks = [
        order(
            "absorption, BatchTopK, the L0 where it is least",
            "0.3",
            ABSORPTION,
            least(plain["truth_absorption"]),
            low=0.1,
            why="another measure on other data: there must be something to be absorbed",
        ),
        order(
            "absorption, Matryoshka over BatchTopK, the L0 where it is largest",
            "about 0.13",
            ABSORPTION,
            most(nested["truth_absorption"] / plain["truth_absorption"]),
            high=1 / 3,
            why="another measure on other data: a third at most",
        ),
        expectation(
            "F1, Matryoshka less BatchTopK, the L0 where it is least",
            "more",
            least(gain),
            low=0.01,
            why="parents with units of their own are told apart",
        ),
        order(
            "explained variance, BatchTopK less Matryoshka, the L0 where it is largest",
            "little",
            COST,
            most(cost),
            0,
            0.05,
            why="the price must be one, and small",
        ),
        expectation(
            "L0, Matryoshka over BatchTopK, where it is farthest from 1",
            "1",
            1 + most(np.abs(nested["eval_l0"] / plain["eval_l0"] - 1)),
            high=1.03,
            why="what is compared must have about as many codes on a sample",
        ),
    ]
    return Report(checks, against_l0(dataset, COMPARED))


def least(values: np.ndarray) -> np.ndarray:
    """The seeds of the L0 whose mean is least, of values [L0, seed]."""
    return values[int(np.argmin(values.mean(axis=1)))]


def most(values: np.ndarray) -> np.ndarray:
    """The seeds of the L0 whose mean is largest, of values [L0, seed]."""
    return values[int(np.argmax(values.mean(axis=1)))]

"""Dictionaries whose directions stay as they were drawn come near trained ones in some measures, and not in others.

Korznikov et al. 2026, "Sanity checks for sparse autoencoders", arXiv 2602.14111: on activations of language models, a
frozen random decoder, a frozen random encoder and a decoder that stays near its start (cosine of .8) match fully
trained dictionaries. Nobody knows the true features there. Here they are known.

    python -m experiments.reproduce random-baselines

About three minutes on 2 cores: BatchTopK trained, with decoder rows near their start, with frozen ones, and with a
frozen encoder, at an L0 of 3, 6 and 12, five seeds. Expect an explained variance that comes nearer with L0, and an MCC
and an F1 that do not.
"""

from __future__ import annotations

import numpy as np

from experiments.reproduce.checks import PRIMARY, Source, expectation, order
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import MEASURES, against_l0, seeds_of, trained

SOURCE = "Korznikov et al. 2026, arXiv 2602.14111"
ABSTRACT = Source("Korznikov et al. 2026, abstract", PRIMARY)
TRAINED, SOFT, FROZEN = "batch_topk", "batch_topk:frozen=soft", "batch_topk:frozen=decoder"
ENCODER = "batch_topk:frozen=encoder"
L0 = (3.0, 6.0, 12.0)


def run(options: Options) -> Report:
    """Train at equal L0 and compare with what was trained in full."""
    targets = L0[::2] if options.quick else L0
    dataset = trained(options, (TRAINED, SOFT, FROZEN, ENCODER), target_l0=targets)

    def share(measure: str, name: str, l0: float) -> np.ndarray:
        of, whole = (seeds_of(dataset, measure, model=model, target_l0=l0) for model in (name, TRAINED))
        return of / whole

    checks = [
        order(
            "explained variance over that of the trained, rows near their start, L0 12",
            "match fully trained ones",
            ABSTRACT,
            share("eval_explained_variance", SOFT, targets[-1]),
            low=0.8 if options.quick else 0.9,
            why="nine tenths; at an L0 of 3 they are far from it",
        )
    ]
    baselines = ((SOFT, "rows near their start", 0.9), (FROZEN, "frozen rows", 0.6), (ENCODER, "frozen encoder", 0.7))
    for name, words, most in baselines:
        first, last = (share("eval_explained_variance", name, l0) for l0 in (targets[0], targets[-1]))
        checks += [
            expectation(
                f"rise of the share of explained variance from L0 3 to 12, {words}",
                "> 0",
                last - first,
                low=0.05,
                why="more codes make up for directions that are not the true ones",
            ),
            *(
                expectation(
                    f"{MEASURES[measure]} over that of the trained, {words}, L0 3",
                    "below 1",
                    share(measure, name, 3.0),
                    high=most,
                    why="the truth tells them apart, where measures without it may not",
                )
                for measure in ("truth_mcc", "truth_f1")
            ),
        ]
    return Report(checks, against_l0(dataset, ("eval_explained_variance", "truth_mcc", "truth_f1")))

"""Dictionaries whose directions stay as they were drawn come near trained ones in some measures, and not in others.

"Do sparse autoencoders beat random baselines?", arXiv 2602.14111: on activations of language models, a frozen random
decoder and a decoder that stays near its start (cosine of .8) nearly match trained dictionaries. Nobody knows the true
features there. Here they are known.

    python -m experiments.reproduce random-baselines

About two minutes on 2 cores: BatchTopK trained, with decoder rows near their start, and with frozen ones, at an L0 of
3, 6 and 12, five seeds. Expect an explained variance that comes nearer with L0, and an MCC and an F1 that do not.
"""

from __future__ import annotations

from experiments.reproduce.report import Check, Options, Report
from experiments.reproduce.synthetic import against_l0, mean_of, trained

SOURCE = "arXiv 2602.14111"
TRAINED, SOFT, FROZEN = "batch_topk", "batch_topk:frozen=soft", "batch_topk:frozen=decoder"
L0 = (3.0, 6.0, 12.0)


def run(options: Options) -> Report:
    """Train at equal L0 and compare with what was trained in full."""
    targets = L0[::2] if options.quick else L0
    dataset = trained(options, (TRAINED, SOFT, FROZEN), target_l0=targets)

    def share(measure: str, name: str, l0: float) -> float:
        return mean_of(dataset, measure, model=name, target_l0=l0) / mean_of(
            dataset, measure, model=TRAINED, target_l0=l0
        )

    checks = []
    for name, words, most in ((SOFT, "rows near their start", 0.9), (FROZEN, "frozen rows", 0.6)):
        explained = [share("eval_explained_variance", name, l0) for l0 in (targets[0], targets[-1])]
        checks += [
            Check(f"explained variance over that of the trained, {words}, L0 3", "near 1", explained[0]),
            Check(f"explained variance over that of the trained, {words}, L0 12", "near 1", explained[1]),
            Check(f"its rise from L0 3 to 12, {words}", "> 0", explained[1] - explained[0], 0.05),
            Check(f"MCC over that of the trained, {words}, L0 3", "", share("truth_mcc", name, 3.0), high=most),
            Check(f"F1 over that of the trained, {words}, L0 3", "", share("truth_f1", name, 3.0), high=most),
        ]
    return Report(checks, against_l0(dataset, ("eval_explained_variance", "truth_mcc", "truth_f1")))

"""k-sparse autoencoders: on MNIST the error of a classifier on the codes has its least value between small and large k.

Makhzani and Frey 2013, "k-sparse autoencoders": 1000 linear units with tied weights, of which a sample keeps the k
largest; k falls linearly over the first half of the training. Errors of logistic regression, as often quoted: 7.20% on
pixels; 2.10%, 1.35% and 1.54% at k = 10, 25 and 40.

    python -m experiments.reproduce k-sparse --data-dir DIR

About 12 minutes on 2 cores. Expect the least error at k = 25, at half of the error of the ends, and 7.4% on pixels. The
errors themselves are two to three times the quoted ones, which are known second-hand and whose length of training is
not; here it is 10 epochs of Adam.
"""

from __future__ import annotations

import dataclasses

from matplotlib import pyplot as plt

from experiments.reproduce.checks import RECALLED, Source, number, order, own
from experiments.reproduce.report import Options, Report
from sae_jax import load, sweep
from sae_jax.analysis.filters import tile
from sae_jax.analysis.tasks import TaskConfig, apply

SOURCE = "Makhzani and Frey 2013"
TABLE = Source("Makhzani and Frey 2013, errors as often quoted", RECALLED)
SIDE = 28
QUOTED = {10: 2.10, 25: 1.35, 40: 1.54}


def run(options: Options) -> Report:
    """Train one lane for each k, all in one program, and a softmax layer on the codes of each."""
    data = load(dataclasses.replace(options.mnist, samples=500 if options.quick else 0))
    units, ks = (40, (1, 8)) if options.quick else (1000, (5, 10, 25, 40, 70, 150, 400, 1000))
    trained = sweep(
        data,
        d_hidden=units,
        k=ks,
        activation="linear",
        output="linear",
        tied=True,
        batch_size=50 if options.quick else 100,
        steps=300 if options.quick else 6000,
        beta=0.0,
        weight_decay=0.0,
        learning_rate=1e-3,
    )
    probed, _ = apply("probe", trained, TaskConfig(iterations=20 if options.quick else 200), data)
    errors = dict(zip(ks, 100 * (1 - probed["probe_accuracy"].values[:, 0]), strict=True))
    raw = 100 * (1 - float(probed["probe_accuracy_raw"]))
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    panels[0].semilogx(list(errors), list(errors.values()), "o-", label="measured")
    panels[0].semilogx(list(QUOTED), list(QUOTED.values()), "s", color="tab:orange", label="quoted")
    panels[0].axhline(raw, color="black", lw=0.8, ls="--", label="pixels, measured")
    panels[0].set(xlabel="k", ylabel="test error of softmax, %", title="codes kept on a sample")
    panels[0].legend(frameon=False)
    for panel, k in zip(panels[1:], (ks[0], ks[len(ks) // 3], ks[-1]), strict=True):
        rows = trained["decoder_weight"].sel(k=k).values[0]
        panel.imshow(tile(rows[:64], (SIDE, SIDE)), cmap="gray", vmin=-1, vmax=1)
        panel.set_title(f"filters, k = {k}")
        panel.axis("off")
    if options.quick:
        gain = float(trained["loss"].sel(k=1)[0, -1] - trained["loss"].sel(k=8)[0, -1])
        check = own("training loss of k = 1 less that of k = 8", "more", gain, low=0.0, why="8 codes hold more than 1")
        return Report([check], figure)
    best = min(errors, key=errors.__getitem__)
    inside = min(errors[k] for k in ks[1:-1])
    checks = [
        order(
            "error at the smallest k over the least one inside",
            "> 1",
            TABLE,
            errors[ks[0]] / inside,
            low=1.05,
            why="more than the tenth of a percent by which errors of one setting differ",
        ),
        order(
            "error at the largest k over the least one inside",
            "> 1",
            TABLE,
            errors[ks[-1]] / inside,
            low=1.05,
            why="as above",
        ),
        number("the best k", "25", TABLE, float(best), 10, 40, why="the neighbours that are quoted"),
        number("error on pixels, %", "7.20", TABLE, raw, 6.2, 8.2, why="no code is trained: a softmax layer alone"),
        *(
            number(
                f"error at k = {k}, %",
                f"{quoted:.2f}",
                TABLE,
                errors[k],
                why="its length of training is not known",
            )
            for k, quoted in QUOTED.items()
        ),
    ]
    return Report(checks, figure)

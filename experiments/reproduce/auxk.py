"""AuxK keeps alive the units of TopK dictionaries that are never among the largest.

Gao et al. 2024, section 2.4 and appendix A: without help up to 90% of the units die, with AuxK and encoder rows that
start along decoder rows 7% of 16 million. Here encoder rows start so in every lane, and what varies is the help alone.
What makes units die is gamma = ||mean|| / ||std|| of the samples (arXiv 2605.31518), while the decoder's bias starts at
0: few units point along the mean, and are the largest on every sample. The bias of samples of known features sets it.

    python -m experiments.reproduce auxk

About two minutes on 2 cores: 128 units for 128 features in 32 dimensions, 4 of them active from the first step on, at
three biases, three seeds. A unit is dead that fires on none of 4,000 held-out samples, and AuxK takes it for dead after
12,800 without firing; the paper counts 10 million tokens. Expect three quarters dead without help at the largest gamma,
2% with AuxK, and 40% with resampling and with the term on pre-activations, whose weight is .1 instead of 3e-6.
"""

from __future__ import annotations

from matplotlib import pyplot as plt

from experiments.reproduce.checks import RECALLED, Source, expectation, order
from experiments.reproduce.report import Options, Report
from experiments.reproduce.synthetic import DATA, TRAINING
from sae_jax import DataConfig, load, sweep
from sae_jax.data.statistics import offset

SOURCE = "Gao et al. 2024; arXiv 2605.31518"
GAO = Source("Gao et al. 2024, section 2.4", RECALLED)
OFFSETS = Source("arXiv 2605.31518", RECALLED)
FEATURES, INPUTS = 128, 32
BIASES = (0, 2, 4)
AUX, DEAD_AFTER = 1 / 32, 12_800
HELP = ("none", "auxk", "resampling", "pre_activation")


def run(options: Options) -> Report:
    """Train with every help at every bias, and count the dead."""
    biases = BIASES[::2] if options.quick else BIASES
    names = [
        f"{DATA}:features={FEATURES},inputs={INPUTS},firing=zipf,p_max=.2,p_min=.01,bias={bias}" for bias in biases
    ]
    dataset = sweep(
        DataConfig(),
        "topk",
        dataset=names,
        dead_units=HELP[:2] if options.quick else HELP,
        aux=AUX,
        dead_after=DEAD_AFTER,
        pre_activation=0.1,
        seeds=1 if options.quick else 3,
        steps=1000 if options.quick else 2000,
        **TRAINING | {"d_hidden": FEATURES, "k": 4, "k_warmup": 0.0, "learning_rate": 0.01},
    )
    gammas = [offset(load(DataConfig(dataset=name)).train) for name in names]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    labels = {"eval_dead_fraction": "dead share", "eval_explained_variance": "explained variance"}
    for panel, (measure, words) in zip(panels, labels.items(), strict=True):
        for help in dataset["dead_units"].values:
            part = dataset[measure].sel(dead_units=help).transpose("dataset", "seed")
            bars = part.std("seed", ddof=1) if part.sizes["seed"] > 1 else None
            panel.errorbar(gammas, part.mean("seed"), bars, marker="o", label=str(help).replace("_", " "))
        panel.set(xlabel="gamma = ||mean|| / ||std||", ylabel=words, ylim=(-0.03, 1.03))
        panel.grid(alpha=0.25)
    panels[0].legend(frameon=False, title="help")
    dead, explained = dataset["eval_dead_fraction"], dataset["eval_explained_variance"].sel(dataset=names[-1])
    first, last = (dead.sel(dataset=name) for name in (names[0], names[-1]))
    gain = explained.sel(dead_units="auxk") - explained.sel(dead_units="none")
    at = f"gamma {gammas[-1]:.2g}"
    most, least = (0.25, 0.05) if options.quick else (0.1, 0.1)
    checks = [
        order(
            f"dead share, no help, {at}",
            "up to 0.9",
            GAO,
            last.sel(dead_units="none"),
            low=0.5,
            why="most of the units must die for help to be of use; the share itself depends on the offset",
        ),
        order(
            f"dead share, AuxK, {at}",
            "0.07",
            GAO,
            last.sel(dead_units="auxk"),
            high=most,
            why="the published share of a far larger dictionary, and 4 units of 128 more",
        ),
        expectation(
            f"explained variance with AuxK less without, {at}",
            "more",
            gain,
            low=least,
            why="units that were revived must be of use, not only fire",
        ),
        order(
            f"dead share, no help, gamma {gammas[0]:.2g}",
            "small",
            OFFSETS,
            first.sel(dead_units="none"),
            high=0.1,
            why="the control: without an offset a fifth of what dies with it, at most",
        ),
    ]
    return Report(checks, figure)

"""Train architectures at several sparsities, and draw quality against sparsity.

    python -m experiments.frontier
    python -m experiments.frontier --dataset tfds:mnist --d-hidden 400 --model topk jumprelu --target-l0 10 20 40

The default trains six architectures, and three baselines of which a part stays as it was drawn or near to it, at four
numbers of active units, three seeds each, on samples of 64 features in 32 dimensions: about three minutes on 2 cores.
It is a sweep of other defaults: every flag of a sweep is one here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sae_jax.commands.environment import call
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import Parsed, named_flags, parse
from sae_jax.commands.help import asks_for_help

MODELS = ("relu", "gated", "topk", "batch_topk", "matryoshka", "jumprelu")
# What dictionaries reach of which half is as good as drawn at random: arXiv 2602.14111.
BASELINES = ("batch_topk:frozen=decoder", "batch_topk:frozen=encoder", "batch_topk:frozen=soft")
DEFAULTS = {
    "model": (*MODELS, *BASELINES),
    "target_l0": (2.0, 3.0, 4.0, 6.0),
    "d_hidden": (64,),
    "batch_size": (256,),
    "steps": (4000,),
    "learning_rate": (3e-3,),
    "final_learning_rate": (0.1,),
    "dataset": ("superposition",),
    "snapshots": (8,),
}
SEEDS = 3


def main(argv: list[str]) -> None:
    """Parse, sweep, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    prog = call("frontier")

    def parsed(argv: Sequence[str]) -> Parsed:
        run, settings, seeds = parse(argv, prog, description, DEFAULTS, several=True, seeds=SEEDS)
        if seeds == 1 and "snapshots" not in named_flags(argv):  # There is no other seed to compare with.
            settings.pop("snapshots", None)
        return run, settings, seeds

    with one_line_errors(printing=False):
        if asks_for_help(argv):
            parsed(argv)  # Prints and exits.
        from sae_jax.commands.session import run_study  # Help need not wait for all that trains.

        run_study("frontier", argv, parsed)

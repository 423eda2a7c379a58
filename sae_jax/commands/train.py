"""Train one sparse autoencoder: a sweep of one cell, with the same files.

    python -m experiments.train --rho .05 --beta 1 --seed 3

About 15 seconds on 2 cores. The lane equals the one with the same settings and seed in a sweep.
"""

from __future__ import annotations

from sae_jax.commands.flags import one_line_errors, parse
from sae_jax.commands.session import run_study


def main(argv: list[str]) -> None:
    """Parse, train, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    with one_line_errors():
        run_study(
            "train", argv, lambda words: parse(words, "python -m experiments.train", description, {}, several=False)
        )

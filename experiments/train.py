"""Train one sparse autoencoder: a sweep of one cell, with the same files.

    python -m experiments.train --rho .05 --beta 1 --seed 3

About 15 seconds on 2 cores. The lane equals the one with the same settings and seed in a sweep.
"""

from __future__ import annotations

import sys

from experiments.cli import one_line_errors, parse
from experiments.launch import launch
from experiments.study import run_study
from sae_jax.distributed import together


def main(argv: list[str]) -> None:
    """Parse, train, save, draw."""
    with one_line_errors():
        launch(argv)
        run, settings, seeds = together(
            lambda: parse(argv, "python -m experiments.train", (__doc__ or "").partition("\n")[0], {}, several=False)
        )
        run_study("train", argv, run, settings, seeds)


if __name__ == "__main__":
    main(sys.argv[1:])

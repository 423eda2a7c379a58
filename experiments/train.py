"""Train one sparse autoencoder: a sweep of one cell, with the same files.

    python -m experiments.train --rho .05 --beta 1 --seed 3

About 15 seconds on 2 cores. The lane equals the one with the same settings and seed in a sweep.
"""

from __future__ import annotations

import sys

from experiments.cli import one_line_errors, parse
from experiments.launch import launch
from experiments.study import run_study


def main(argv: list[str]) -> None:
    """Parse, train, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    with one_line_errors():
        launch(argv)
        run_study(
            "train", argv, lambda words: parse(words, "python -m experiments.train", description, {}, several=False)
        )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Train one sparse autoencoder: a sweep of one cell, with its files.

    python -m experiments.train --rho .02 --beta 1 --seed 3

About 15 seconds on 2 cores. Up to rounding, the lane equals the one with the same settings and seed in a sweep.
"""

from __future__ import annotations

import functools

from sae_jax.commands.environment import call
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import parse
from sae_jax.commands.help import asks_for_help


def main(argv: list[str]) -> None:
    """Parse, train, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    parsed = functools.partial(parse, prog=call("train"), description=description, defaults={}, several=False)
    with one_line_errors(printing=False):
        if asks_for_help(argv):
            parsed(argv)  # Prints and exits.
        from sae_jax.commands.session import run_study  # Help need not wait for all that trains.

        run_study("train", argv, parsed)

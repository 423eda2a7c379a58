"""Train a grid of sparse autoencoders over any settings, with several seeds, and draw what came out.

    python -m experiments.sweep
    python -m experiments.sweep --dataset tfds:mnist --d-hidden 196 --rho .02 .05 --beta 1 2 --seeds 8

The default trains rho x beta x seeds, 36 lanes, on patches of photographs: about a minute on 2 cores. Expect curves
that fall, next to no dead units, oriented edges as filters, the cleaner the smaller rho is, mean activations nearer to
rho the larger beta is, and explained variance from .74 (rho .02, beta .5) down to .56 (rho .01, beta 2).
"""

from __future__ import annotations

import functools

from sae_jax.commands.environment import call
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import parse
from sae_jax.commands.help import asks_for_help

DEFAULT_AXES = {"rho": (0.01, 0.015, 0.02), "beta": (0.5, 1.0, 2.0)}


def main(argv: list[str]) -> None:
    """Parse, sweep, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    parsed = functools.partial(parse, prog=call("sweep"), description=description, defaults=DEFAULT_AXES, several=True)
    with one_line_errors(printing=False):
        if asks_for_help(argv):
            parsed(argv)  # Prints and exits.
        from sae_jax.commands.session import run_study  # Help need not wait for all that trains.

        run_study("sweep", argv, parsed)

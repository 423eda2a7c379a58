"""Train a grid of sparse autoencoders over any settings, with several seeds, and draw what came out.

    python -m experiments.sweep
    python -m experiments.sweep --dataset tfds:mnist --d-hidden 196 --rho .05 .1 --beta 1 3 --seeds 8

The default trains rho x beta x seeds, 36 lanes, on patches of photographs: about half a minute on 2 cores. Expect
oriented edges as filters where beta >= 1, mean activations nearer to rho the larger beta is, and explained variance
that falls as rho falls.
"""

from __future__ import annotations

import functools

from sae_jax.commands.environment import call
from sae_jax.commands.flags import asks_for_help, one_line_errors, parse

DEFAULT_AXES = {"rho": (0.05, 0.07, 0.1), "beta": (0.3, 1.0, 3.0)}


def main(argv: list[str]) -> None:
    """Parse, sweep, save, draw."""
    description = (__doc__ or "").partition("\n")[0]
    parsed = functools.partial(parse, prog=call("sweep"), description=description, defaults=DEFAULT_AXES, several=True)
    with one_line_errors():
        if asks_for_help(argv):
            parsed(argv)  # Prints and exits.
        from sae_jax.commands.session import run_study  # Help need not wait for all that trains.

        run_study("sweep", argv, parsed)

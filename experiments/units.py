"""Keep what a reader needs of every unit of a finished run: python -m experiments.units --help."""

import sys

from sae_jax.commands.units import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""Draw figures of a finished run again: python -m experiments.draw --help."""

import sys

from sae_jax.commands.draw import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""List runs, show one, remove abandoned ones: python -m experiments.runs --help."""

import sys

from sae_jax.commands.runs import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""Encode samples with a lane of a finished run: python -m experiments.encode --help."""

import sys

from sae_jax.commands.encode import main

if __name__ == "__main__":
    main(sys.argv[1:])

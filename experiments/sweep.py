"""Train a grid of sparse autoencoders: python -m experiments.sweep --help."""

import sys

from sae_jax.commands.sweep import main

if __name__ == "__main__":
    main(sys.argv[1:])

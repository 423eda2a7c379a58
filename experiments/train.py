"""Train one sparse autoencoder: python -m experiments.train --help."""

import sys

from sae_jax.commands.train import main

if __name__ == "__main__":
    main(sys.argv[1:])

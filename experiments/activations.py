"""Write the rows of a data set as a folder of shards: python -m experiments.activations --help."""

import sys

from sae_jax.commands.activations import main

if __name__ == "__main__":
    main(sys.argv[1:])

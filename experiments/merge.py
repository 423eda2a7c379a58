"""Put finished runs together as one: python -m experiments.merge --help."""

import sys

from sae_jax.commands.merge import main

if __name__ == "__main__":
    main(sys.argv[1:])

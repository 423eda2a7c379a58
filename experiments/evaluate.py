"""Put every lane of a finished run to a task: python -m experiments.evaluate --help."""

import sys

from sae_jax.commands.evaluate import main

if __name__ == "__main__":
    main(sys.argv[1:])

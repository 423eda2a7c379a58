"""Quality against sparsity of several architectures: python -m experiments.frontier --help."""

import sys

from sae_jax.commands.frontier import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""Write lanes of a finished run for SAELens or PyTorch: python -m experiments.export --help."""

import sys

from sae_jax.commands.export import main

if __name__ == "__main__":
    main(sys.argv[1:])

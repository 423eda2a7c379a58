"""Write lanes of a finished run as files of another library: python -m experiments.export --help."""

import sys

from sae_jax.commands.export import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""Write a page that shows finished runs in a browser: python -m experiments.report --help."""

import sys

from sae_jax.commands.report import main

if __name__ == "__main__":
    main(sys.argv[1:])

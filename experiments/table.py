"""Print the table of a finished run as Markdown, CSV or LaTeX: python -m experiments.table --help."""

import sys

from sae_jax.commands.table import main

if __name__ == "__main__":
    main(sys.argv[1:])

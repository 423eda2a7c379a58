"""Scripts: python -m experiments.NAME."""

import sys

from sae_jax.commands.signals import end_at_once
from sae_jax.commands.variables import import_jax

# So Python has it while it looks for the script that it was told to run.
if sys.argv[:1] == ["-m"]:
    end_at_once()
    import_jax()

"""Scripts: python -m experiments.NAME."""

import sys

from sae_jax.commands.signals import end_at_once
from sae_jax.commands.variables import settle_variables

# So Python has it while it looks for the script that it was told to run.
if sys.argv[:1] == ["-m"]:
    end_at_once()
    settle_variables()

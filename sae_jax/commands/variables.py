"""Variables of the environment that JAX reads as it is imported, before a command could refuse one."""

from __future__ import annotations

import os
import sys

BAD_INPUT = 2


def import_jax() -> None:
    """Import JAX; where a variable has a value that it cannot read, end the process with a line."""
    try:
        import jax  # noqa: F401
    except ValueError as error:
        wrong = [name for name in os.environ if name.startswith("JAX_") and name.lower() in str(error).lower()]
        if not wrong:
            raise
        print(f"error: {wrong[0]} must be as JAX reads it: got {os.environ[wrong[0]]}; unset it", file=sys.stderr)
        sys.exit(BAD_INPUT)

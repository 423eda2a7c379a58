"""The console command: sae-jax COMMAND.

sae-jax sweep --steps 50 --seeds 1
sae-jax COMMAND --help
"""

from __future__ import annotations

import importlib
import sys

import sae_jax
from sae_jax.settings import UserError, unknown

# Every command is the function main of a module of this folder, imported when it is called.
COMMANDS = {
    "sweep": "Train a grid of sparse autoencoders over any settings, with several seeds, and draw what came out.",
    "train": "Train one sparse autoencoder: a sweep of one cell, with the same files.",
    "evaluate": "Put every lane of a finished run to a task, add what it measures to the run's results, and draw it.",
}
BAD_INPUT = 2


def main() -> None:
    """Hand the words after a command to its module."""
    name, *words = sys.argv[1:] or [""]
    if name in ("--help", "-h"):
        print(usage())
    elif name == "--version":
        print(f"sae-jax {sae_jax.__version__}")
    elif name in COMMANDS:
        importlib.import_module(f"sae_jax.commands.{name}").main(words)
    else:
        print(f"error: {_refusal(name)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def usage() -> str:
    """What sae-jax --help prints."""
    rows = [f"  {name:<10}{sentence}" for name, sentence in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sae-jax COMMAND [FLAG VALUE ...]",
            "",
            *rows,
            "",
            "sae-jax COMMAND --help lists a command's flags; sae-jax --version says which version this is.",
        ]
    )


def _refusal(name: str) -> UserError:
    if not name:
        return UserError(f"sae-jax needs a command: got none; use one of {', '.join(COMMANDS)}")
    return unknown("command", name, COMMANDS)

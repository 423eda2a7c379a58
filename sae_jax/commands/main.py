"""The console command: sae-jax COMMAND.

sae-jax sweep --steps 50 --seeds 1
sae-jax COMMAND --help
"""

from __future__ import annotations

import importlib
import sys
import textwrap

import sae_jax
from sae_jax.commands.help import WIDTH
from sae_jax.commands.signals import end_at_once
from sae_jax.commands.variables import BAD_INPUT, settle_variables
from sae_jax.sweeps.streams import open_streams

# Every command is the function main of a module of this folder, imported when it is called.
COMMANDS = {
    "sweep": "Train a grid of sparse autoencoders over any settings, with several seeds, and draw what came out.",
    "frontier": "Train architectures at several sparsities, and draw quality against sparsity.",
    "train": "Train one sparse autoencoder: a sweep of one cell, with its files.",
    "merge": "Put finished runs of different settings or seeds together as one.",
    "evaluate": "Put every lane of a finished run to a task, add what it measures to the run's results, and draw it.",
    "units": "Keep what a reader needs of every unit, and draw a page of them.",
    "encode": "Encode samples with a lane of a finished run, and write the codes into a file.",
    "export": "Write lanes of a finished run for SAELens or PyTorch.",
    "activations": "Write the rows of a data set as a folder of shards.",
    "table": "Print the table of a finished run as Markdown, CSV or LaTeX.",
    "draw": "Draw figures of a finished run again, as images or vectors, for a screen or a paper.",
    "report": "Write a page that shows finished runs in a browser.",
    "runs": "List the runs in a folder, show one of them, or remove those that were abandoned before they had results.",
}


def main() -> None:
    """Hand the words after a command to its module."""
    end_at_once()
    open_streams()
    name, *words = sys.argv[1:] or [""]
    if name in ("--help", "-h"):
        print(usage())
    elif name == "--version":
        print(f"sae-jax {sae_jax.__version__}")
    elif name in COMMANDS:
        settle_variables()
        importlib.import_module(f"sae_jax.commands.{name}").main(words)
    else:
        print(f"error: {_refusal(name)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def usage() -> str:
    """What sae-jax --help prints."""
    width = max(map(len, COMMANDS)) + 1
    indent = " " * (2 + width)
    rows = [textwrap.fill(f"  {name:<{width}}{COMMANDS[name]}", WIDTH, subsequent_indent=indent) for name in COMMANDS]
    return "\n".join(
        [
            "usage: sae-jax COMMAND [FLAG VALUE ...]",
            "",
            *rows,
            "",
            "COMMAND --help lists its flags; sae-jax --version says which version this is.",
        ]
    )


def _refusal(name: str) -> Exception:
    from sae_jax.settings import UserError, unknown  # Nothing else here waits for a library.

    if not name:
        return UserError(f"sae-jax needs a command: got none; use one of {', '.join(COMMANDS)}")
    return unknown("command", name, COMMANDS)

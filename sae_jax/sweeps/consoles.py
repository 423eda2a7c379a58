"""How tables and lines are printed: as the texts are, whatever is in users' names."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console

from sae_jax.sweeps.streams import is_terminal

# Wide enough for the table where the output is a file, which has no width of its own.
FILE_WIDTH = 120


def plain_console(stream: TextIO | None = None, width: int | None = FILE_WIDTH, soft_wrap: bool = True) -> Console:
    """A console that takes no [text] for markup and no :text: for an emoji: names and paths may hold either.

    Args:
        stream: None is stdout.
        width: in columns, where the stream is no terminal; None is what rich takes.
        soft_wrap: whether long lines are left to the terminal.
    """
    at_terminal = is_terminal(stream or sys.stdout)
    return Console(file=stream, width=None if at_terminal else width, soft_wrap=soft_wrap, markup=False, emoji=False)

"""The help of a command: at most 80 columns wide, and short unless all is asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

WIDTH = 80
FLAGS, EVERYTHING = ("--help", "-h"), "all"
# What the help of a training shows, in this order; the rest is for those who ask for all.
FIRST = (
    *("dataset", "rho", "beta", "d_hidden", "seeds", "seed", "steps", "activation", "normalize"),
    *("name", "resume"),
)


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks for the list of flags and for nothing else."""
    return any(word in argv for word in FLAGS)


def print_help(
    argv: Sequence[str], prog: str, description: str, groups: Mapping[str, list[Any]], first: Sequence[str] = ()
) -> NoReturn:
    """Print the help of a command, and end.

    Args:
        argv: its words; `--help all` shows every flag.
        prog, description: for the help.
        groups: by heading, options made by `flags.option`.
        first: names of the options that are shown where not all are asked for; empty shows all.

    Raises:
        SystemExit: always.
    """
    import tyro

    paragraphs = [description]
    if first and not _asks_for_all(argv):
        options = {option[0]: option for group in groups.values() for option in group}
        groups = {"main": [options[name] for name in first if name in options]}
        paragraphs.append(f"These are the flags that most people need; {prog} {FLAGS[0]} {EVERYTHING} shows all.")
    whole = options_type(groups)
    text = io.StringIO()
    with _narrow(), contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        described = "\n\n".join(paragraphs)
        tyro.cli(whole, args=[FLAGS[0]], prog=prog, description=described, config=(tyro.conf.OmitArgPrefixes,))
    # The library wraps what it says of flags, but no description.
    print("\n".join(textwrap.fill(line, WIDTH) if len(line) > WIDTH else line for line in text.getvalue().splitlines()))
    sys.exit(0)


def options_type(groups: Mapping[str, list[Any]]) -> type[Any]:
    """The dataclass that the library reads the options of a command line into: one field for each group."""
    types = [_sourceless(group, options) for group, options in groups.items()]
    return _sourceless("options", [(one.__name__, one, dataclasses.field(default_factory=one)) for one in types])


def _sourceless(name: str, fields: list[Any]) -> type[Any]:
    """A dataclass that the library looks for in no file: it would parse a whole one for comments on the fields."""
    made = dataclasses.make_dataclass(name, fields)
    made.__module__ = "builtins"
    return made


def _asks_for_all(argv: Sequence[str]) -> bool:
    return any(word in FLAGS and after == EVERYTHING for word, after in itertools.pairwise(argv))


@contextlib.contextmanager
def _narrow() -> Iterator[None]:
    """Let the library wrap at a width that every terminal has, or at the terminal's own where it is narrower."""
    before, width = os.environ.get("COLUMNS"), min(WIDTH, shutil.get_terminal_size().columns)
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before

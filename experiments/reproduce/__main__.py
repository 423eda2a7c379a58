"""Regenerate a published figure or number and say how near it came.

    python -m experiments.reproduce --list
    python -m experiments.reproduce kl-curve
    python -m experiments.reproduce --all

Prints published | measured | difference, writes reproductions/NAME.json and NAME.png, and ends with exit code 1 where a
measured number lies outside its stated tolerance.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from experiments.cli import one_line_errors
from experiments.process import set_up
from experiments.reproduce.report import COLUMNS, Options, Report, markdown_table
from sae_jax.settings import UserError, flag, unknown

NAMES = (
    *("kl-curve", "pca", "ufldl-patches", "ufldl-mnist", "self-taught", "stacked"),
    *("denoising-filters", "contractive", "manifold", "k-sparse", "kl-vs-l1", "ema-decay"),
)
OUTSIDE = 1


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line."""

    name: Annotated[str, tyro.conf.arg(help="which reproduction", metavar="NAME"), tyro.conf.Positional] = ""
    list: Annotated[bool, tyro.conf.arg(help="name all reproductions and end")] = False
    all: Annotated[bool, tyro.conf.arg(help="run them all, one after another")] = False
    table: Annotated[bool, tyro.conf.arg(help="print the README's table of what has been saved, and end")] = False
    quick: Annotated[bool, tyro.conf.arg(help="a small size with loose tolerances, for tests")] = False
    images: Annotated[str, tyro.conf.arg(help="ufldl-patches: other images, a .npy of [n, height, width]")] = ""
    data_dir: Annotated[str, tyro.conf.arg(help="folder of prepared tensorflow-datasets that holds mnist")] = ""
    out: Annotated[str, tyro.conf.arg(help="folder of the reports")] = "reproductions"


def main(argv: list[str]) -> None:
    """Parse, reproduce, save, tell."""
    set_up()
    with one_line_errors():
        arguments, rest = tyro.cli(
            Arguments,
            args=argv,
            prog="python -m experiments.reproduce",
            description=(__doc__ or "").partition("\n")[0],
            return_unknown_args=True,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        if rest:
            flags = [flag(field.name) for field in dataclasses.fields(Arguments) if field.name != "name"]
            raise unknown("flag" if rest[0].startswith("-") else "second name", rest[0].partition("=")[0], flags)
        if arguments.list:
            for name in NAMES:
                module = _module(name)
                print(f"{name:16} {(module.__doc__ or '').partition(chr(10))[0]} ({module.SOURCE})")
            return
        if arguments.table:
            print(markdown_table(Path(arguments.out)))
            return
        if bool(arguments.name) == arguments.all:
            raise UserError(f"name one reproduction, or pass --all: known are {', '.join(NAMES)}")
        names = NAMES if arguments.all else (arguments.name,)
        for name in names:
            if name not in NAMES:
                raise unknown("reproduction", name, NAMES)
        options = Options(arguments.quick, arguments.images, arguments.data_dir)
        reports, refused = [], []
        for name in names:
            try:
                reports.append(_reproduce(name, options, Path(arguments.out)))
            except UserError as error:  # One that lacks its data does not keep the others back.
                refused.append(f"{name}: {error}")
        if refused:
            raise UserError("; ".join(refused))
        if not all(report.passed for report in reports):
            sys.exit(OUTSIDE)


def _module(name: str) -> ModuleType:
    return import_module(f"experiments.reproduce.{name.replace('-', '_')}")


def _reproduce(name: str, options: Options, out: Path) -> Report:
    began, module = time.monotonic(), _module(name)
    report: Report = module.run(options)
    paths = report.save(name, module.SOURCE, options, out)
    table = Table(title=f"{name}: {module.SOURCE}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "what" else "right")
    for check in report.checks:
        table.add_row(*check.row, style="" if check.passed else "red")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f"{time.monotonic() - began:.0f} s; files: {', '.join(map(str, paths))}")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])

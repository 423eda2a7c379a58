"""Regenerate a published figure or number and say how near it came.

    python -m experiments.reproduce --list
    python -m experiments.reproduce kl-curve
    python -m experiments.reproduce --all

--all runs nothing again whose report is there and of the same sources, options and versions (`identity`), so that the
same command goes on after it was interrupted; a reproduction that is named is always run.

Prints published | measured | tolerance, writes reproductions/NAME.json and NAME.png, and ends with exit code 1 where a
measured number lies outside its stated tolerance.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rich.table import Table

from experiments.reproduce.checks import COLUMNS, KINDS
from experiments.reproduce.identity import check_replaceable, identity_of, provenance, saved_as
from experiments.reproduce.report import Options, Report, saved_tables
from sae_jax.commands.environment import check_writable, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, option, options_of, read
from sae_jax.commands.signals import interrupts_of
from sae_jax.settings import TEXT, TRUE_OR_FALSE, UserError, setting, unknown
from sae_jax.sweeps.consoles import plain_console
from sae_jax.sweeps.devices import reserve_cpu_devices

NAMES = (
    *("kl-curve", "pca", "ufldl-patches", "ufldl-mnist", "self-taught", "stacked"),
    *("denoising-filters", "contractive", "manifold", "k-sparse", "kl-vs-l1", "ema-decay", "ema-rule"),
    *("sharkey-mmcs", "shrinkage", "topk-frontier", "random-baselines", "kl-rate"),
    *("auxk", "matryoshka-absorption", "elhage-superposition", "synthsaebench", "spine"),
    *("winner-take-all", "hinton-salakhutdinov"),
)
WITH_IMAGES = "ufldl-patches"
OUTSIDE = 1


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The flags of the command line."""

    list: bool = setting(False, TRUE_OR_FALSE, "name all reproductions and end")
    all: bool = setting(
        False, TRUE_OR_FALSE, "run all but those whose report is of the same sources, options and versions"
    )
    table: bool = setting(False, TRUE_OR_FALSE, "print the tables of what has been saved, and end")
    quick: bool = setting(False, TRUE_OR_FALSE, "a small size with loose tolerances, for tests")
    images: str = setting("", TEXT, f"{WITH_IMAGES}: other images, a .npy of [n, height, width]")
    white: bool = setting(False, TRUE_OR_FALSE, "the images of --images are white already, as the course's own are")
    data_dir: str = setting("", TEXT, "folder of prepared tensorflow-datasets that holds mnist")
    out: str = setting("reproductions", TEXT, "folder of the reports")


def main(argv: list[str]) -> None:
    """Parse, reproduce, save, tell."""
    with one_line_errors():
        set_up()
        name, arguments = _parse(argv)
        out = Path(arguments.out)
        if arguments.list:
            width = max(map(len, NAMES))
            for known in NAMES:
                module = _module(known)
                print(f"{known:{width}} {(module.__doc__ or '').partition(chr(10))[0]} ({module.SOURCE})")
            return
        if arguments.table:
            print(saved_tables(out))
            return
        check_writable(out, "--out")
        # What one reproduction computes must not leave the sweeps of another with a single device.
        reserve_cpu_devices()
        options = Options(arguments.quick, arguments.images, arguments.white, arguments.data_dir)
        passed, refused = [], []
        with interrupts_of("interrupted; nothing was finished") as interrupts:
            # What is saved is whole at any moment, so there is nothing to wait for.
            interrupts.patience = 0.0
            for chosen in [name] if name else NAMES:
                try:
                    passed.append(_reproduce(chosen, options, out, again=not arguments.all))
                except UserError as error:  # One that lacks its data does not keep the others back.
                    refused.append(f"{chosen}: {error}")
                if passed and arguments.all:
                    interrupts.last_words = (
                        f"interrupted; {len(passed)} of {len(NAMES)} are finished and saved in {out}: "
                        "the same command goes on from there"
                    )
        if refused:
            raise UserError("; ".join(refused))
        if not all(passed):
            sys.exit(OUTSIDE)


def _parse(argv: list[str]) -> tuple[str, Arguments]:
    """The reproduction that is named, empty for all of them, and the flags.

    Raises:
        UserError: there is no such reproduction or flag, or they contradict each other.
    """
    groups = {
        "which": [option("name", ("",), "which reproduction", "NAME", False, positional=True)],
        "settings": options_of(Arguments),
    }
    words = read(argv, "python -m experiments.reproduce", (__doc__ or "").partition("\n")[0], groups)
    arguments: Arguments = checked_settings(Arguments, words)
    name = " ".join(words["name"])
    asked = [f"--{flag}" for flag in ("list", "table", "all") if getattr(arguments, flag)] + [name] * bool(name)
    if len(asked) != 1:
        raise UserError(
            f"name one reproduction, or pass --all, --list or --table: got {', '.join(asked) or 'none'}; "
            f"known are {', '.join(NAMES)}, before any flag"
        )
    if name and name not in NAMES:
        raise unknown("reproduction", name, NAMES)
    if arguments.images and name not in ("", WITH_IMAGES):
        raise UserError(f"--images is read by {WITH_IMAGES} alone: got it beside {name}; leave it out")
    if arguments.white and not arguments.images:
        raise UserError("--white says something of --images: got it without them; leave it out")
    return name, arguments


def _path(name: str) -> str:
    return f"experiments.reproduce.{name.replace('-', '_')}"


def _module(name: str) -> ModuleType:
    return import_module(_path(name))


def _reproduce(name: str, options: Options, out: Path, again: bool) -> bool:
    """Run one, unless its saved report is of the same and need not be made again; whether it met its tolerances."""
    began, module = time.monotonic(), _module(name)
    if name != WITH_IMAGES:
        options = dataclasses.replace(options, images="")
    identity = identity_of(_path(name), getattr(module, "PACKAGES", ()))
    if not again and (saved := saved_as(out, name, options.content, identity)):
        print(f"{name}: not run again: {out / name}.json is of these sources, options and versions")
        return bool(saved["passed"])
    check_replaceable(out, name, options.content)
    report: Report = module.run(options)
    seconds = time.monotonic() - began
    paths = report.save(name, module.SOURCE, options, provenance(identity, seconds), out)
    print(f"{name}: {module.SOURCE}")
    table = Table()
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "what" else "right")
    for kind, title in KINDS.items():
        of_kind = [check for check in report.checks if check.kind == kind]
        if of_kind:
            table.add_row(title, style="italic")
        for check in of_kind:
            table.add_row(*check.row, style="" if check.passed else "red")
    plain_console(width=140, soft_wrap=False).print(table)
    print(f"{seconds:.0f} s; files: {', '.join(map(str, paths))}")
    return report.passed


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure how fast the engine trains beside PyTorch, plain vmap and lax.map, SciPy, and the machine's matrix products.

    python -m experiments.benchmark
    python -m experiments.benchmark --quick
    python -m experiments.benchmark --json docs/benchmark.json
    python -m experiments.benchmark --only dictionaries --json docs/benchmark.json
    python -m experiments.benchmark --only lbfgs --json docs/benchmark.json
    python -m experiments.benchmark --only streams --json docs/benchmark.json
    python -m experiments.benchmark --table docs/benchmark.json

The contenders of a row run in turn, one round after another, and every number is a median over rounds. A model-step is
one training step of one autoencoder. PyTorch and SAELens are asked where they are installed: python -m pip install -r
requirements-interop.txt. About half an hour on 2 cores, most of which PyTorch takes to compile.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.benchmark.lbfgs import against_scipy
from experiments.benchmark.measure import machine, measure, measure_dictionary, product_rate
from experiments.benchmark.shapes import ACCELERATOR, CPU, DICTIONARIES, QUICK, QUICK_DICTIONARIES, SQUARE
from experiments.benchmark.streams import from_shards
from experiments.benchmark.tables import markdown_tables, show, show_part, tables_of
from sae_jax.commands.environment import check_file, write_whole
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, options_of, read
from sae_jax.settings import TEXT, TRUE_OR_FALSE, UserError, one_of, setting
from sae_jax.storage.atomic import mend_unread, read_file
from sae_jax.sweeps.devices import choose_devices

SECONDS, QUICK_SECONDS = 0.5, 0.01


@dataclasses.dataclass(frozen=True)
class Output:
    """What is measured, and where the numbers go."""

    json: str = setting("", TEXT, "write the numbers to this file; empty is none")
    table: str = setting("", TEXT, "print a saved file as the README's table, and end")
    quick: bool = setting(False, TRUE_OR_FALSE, "tiny shapes and short runs, for tests")
    only: str = setting(
        "all",
        one_of(("all", "dictionaries", "lbfgs", "streams")),
        "measure all but the streams; or the dictionaries alone, or the fits by L-BFGS, or training on a folder of 8 "
        "GiB of shards, which is written into $TMPDIR and removed again: the file of --json keeps its other numbers",
    )


def main(argv: list[str]) -> None:
    """Parse, measure row by row, save, show."""
    with one_line_errors():
        words = read(
            argv,
            "python -m experiments.benchmark",
            (__doc__ or "").partition("\n")[0],
            {"output": options_of(Output)},
        )
        output = checked_settings(Output, words)
        others = [name for name in ("json", "quick") if getattr(output, name)] + ["only"] * (output.only != "all")
        if output.table and others:
            raise UserError(f"--table measures nothing: got it beside --{others[0]}; leave one")
        if output.table:
            print(markdown_tables(saved(Path(output.table))))
            return
        target = Path(output.json).absolute()
        if output.json:
            check_file(Path(output.json), "--json")

        def save(content: dict[str, Any]) -> None:
            if output.json:
                write_whole(target, (json.dumps(content, indent=2) + "\n").encode(), "--json")

        if output.only == "all":
            show(benchmark(output.quick, save))
            return
        before = saved(Path(output.json), tables_of, f"--json beside --only {output.only}") if target.is_file() else {}
        part = PARTS[output.only](output.quick)
        save(before | {output.only: part})
        show_part(output.only, part)


def benchmark(quick: bool, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All rows, of shapes and of dictionaries, the product rate at 2048 x 2048 and the fits by L-BFGS, for JSON.

    Args:
        quick: whether to measure small shapes, shortly.
        save: takes what has been measured, whenever there is more of it.
    """
    devices, seconds = choose_devices(), QUICK_SECONDS if quick else SECONDS
    shapes = QUICK if quick else CPU if devices[0].platform == "cpu" else ACCELERATOR
    content: dict[str, Any] = {"machine": machine(devices), "rows": []}
    content["square_gflops"] = product_rate(shapes[0] if quick else SQUARE, devices, seconds)
    for row in measured_rows(shapes, measure, quick):
        content["rows"].append(row)
        save(content)
    content["dictionaries"] = measured_dictionaries(quick)
    content["lbfgs"] = fits_by_lbfgs(quick)
    save(content)
    return content


def measured_rows(rows: Iterable[Any], measured: Callable[..., Any], quick: bool) -> Iterator[dict[str, Any]]:
    """What `measured` says of one row after another, for JSON; a row for which a device has no memory is left out."""
    jax.config.update("jax_enable_compilation_cache", False)
    devices = choose_devices()
    for row in rows:
        try:
            yield measured(row, devices, QUICK_SECONDS if quick else SECONDS)
        except RuntimeError as error:  # Both JAX's and PyTorch's.
            if "out of memory" not in str(error).lower():
                raise
            print(f"left out {row}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            continue
        print(f"measured {row}", file=sys.stderr, flush=True)


def measured_dictionaries(quick: bool) -> list[dict[str, Any]]:
    """The rows of dictionaries, and where they were measured, for JSON; `quick` is whether to measure small ones."""
    where = {"machine": machine(choose_devices())}
    rows = QUICK_DICTIONARIES if quick else DICTIONARIES
    return [where | row for row in measured_rows(rows, measure_dictionary, quick)]


def fits_by_lbfgs(quick: bool) -> dict[str, Any]:
    """The fits by L-BFGS, and where they were measured, for JSON; `quick` is whether to measure small ones."""
    fits = against_scipy(*(100, 5, 2) if quick else (10_000, 400, 8))
    return {"machine": machine(choose_devices()), **fits}


def training_on_shards(quick: bool) -> dict[str, Any]:
    """Training on a folder of shards, and where that was measured, for JSON; `quick` is whether on a small one."""
    measured = from_shards(*(2**-8, 64, 64, 256, 400) if quick else (8, 768, 6144, 2048, 100))
    return {"machine": machine(choose_devices()), **measured}


# What --only measures, by the names of the JSON.
PARTS: dict[str, Callable[[bool], Any]] = {
    "dictionaries": measured_dictionaries,
    "lbfgs": fits_by_lbfgs,
    "streams": training_on_shards,
}


def saved(
    path: Path, shown: Callable[[dict[str, Any]], Any] = markdown_tables, flag: str = "--table"
) -> dict[str, Any]:
    """Numbers written by --json, which `shown` can show; `flag` is what names the file.

    Raises:
        UserError: the file holds none.
    """
    try:
        content = dict(json.loads(read_file(path)))
        shown(content)
    except Exception as error:  # Anything may be in a file.
        fix = mend_unread(error, "write one")
        raise UserError(f"{flag} must name a file written by --json: got {path}: {error!r}; {fix}") from None
    return content


if __name__ == "__main__":
    main(sys.argv[1:])

"""The numbers of a benchmark as tables: for a terminal, and for docs/benchmark.md."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.table import Table

from experiments.benchmark.measure import ALL_CODES, CONTROLS, ENGINE, PEERS, PRODUCTS, SAELENS
from experiments.benchmark.shapes import Shape
from sae_jax.sweeps.consoles import plain_console

MISSING = "not installed"
COLUMNS = ("model-steps/s", "GFLOP/s", "of products", "compile, s", "memory, MiB")


class Content(NamedTuple):
    """A table: what stands above it, its columns and rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def tables_of(content: dict[str, Any]) -> list[Content]:
    """The table of shapes of the classic model, and that of dictionaries once they are measured."""
    shapes = Content(
        f"{content['machine']}; matrix products at 2048 x 2048: {content['square_gflops']:.0f} GFLOP/s",
        ["shape", *COLUMNS, *(f"over {name}" for name in (*PEERS, *CONTROLS))],
        [_shape_cells(row) for row in content["rows"]],
    )
    dictionaries = content.get("dictionaries")
    return [shapes, table_of_dictionaries(dictionaries)] if dictionaries else [shapes]


def table_of_dictionaries(rows: list[dict[str, Any]]) -> Content:
    """The table of dictionaries alone."""
    others = (SAELENS, PRODUCTS, ALL_CODES)
    return Content(
        f"Dictionaries ({rows[0]['machine']}), by the presets of a library; model-steps/s of the engine over its "
        "trainer's, over those of the five products of a step alone, and over those of the engine that multiplies all "
        "codes",
        ["preset", "shape", "active", "model-steps/s", *(f"over {name}" for name in others)],
        [_dictionary_cells(row, others) for row in rows],
    )


def in_words(fit: dict[str, Any]) -> str:
    """The fits by L-BFGS, as `against_scipy` returns them, in words."""
    seconds, iterations, cost = fit["seconds"], fit["iterations"], fit["cost"]
    return (
        f"L-BFGS on the UFLDL problem ({fit['machine']}), remembering 100 steps, until a fit is within 0.01% of the "
        f"cost at which SciPy's ends: {seconds['engine']:.2f} s and {iterations['engine']:.0f} iterations a fit, "
        f"{fit['fits']} at once, {fit['as low']} of which come as low; SciPy's L-BFGS-B in NumPy, float64: "
        f"{seconds['SciPy']:.2f} s and {iterations['SciPy']:.0f}; {fit['ratio']:.1f}x. Largest cost after as many "
        f"iterations as SciPy's: {max(cost['engine']):.4f}, SciPy's {max(cost['SciPy']):.4f}"
    )


def streams_in_words(stream: dict[str, Any]) -> str:
    """Training on shards, as `from_shards` returns it, in words."""
    width, units, batch = stream["shape"]
    at_random, in_turn = (stream[f"{kind}_bytes_per_second"] / 1e6 for kind in ("random", "sequential"))
    size, memory = (stream[name] / 2**30 for name in ("bytes", "peak_bytes"))
    return (
        f"A folder of {size:.2g} GiB of bfloat16 shards ({stream['machine']}), TopK {width}-{units}, {stream['steps']} "
        f"steps of {batch} rows at random and {stream['step_seconds']:.2g} s: the device waits for rows "
        f"{stream['waiting_share']:.1%} of the time, and the process takes {memory:.2f} GiB of memory at its height. "
        f"Rows at random are read at {at_random:,.0f} MB/s, files one after another at {in_turn:,.0f}"
    )


# What is no table, in words.
IN_WORDS = {"lbfgs": in_words, "streams": streams_in_words}


def markdown_tables(content: dict[str, Any]) -> str:
    """The saved numbers for docs/benchmark.md."""
    lines = []
    for table in tables_of(content):
        rows = [table.columns, ["---"] * len(table.columns), *table.rows]
        lines += [f"{table.title}.", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *(f"{text}.\n" for text in _sentences(content))]).rstrip()


def _sentences(content: dict[str, Any]) -> list[str]:
    """Those of the parts that have been measured."""
    return [words(content[part]) for part, words in IN_WORDS.items() if part in content]


def show(content: dict[str, Any]) -> None:
    """Print the numbers."""
    for table in tables_of(content):
        _print_table(table)
    for text in _sentences(content):
        print(text)
    _print_plans([*content["rows"], *content.get("dictionaries", [])])


def show_part(name: str, part: Any) -> None:
    """Print the numbers of one part, which is named as it is in the file."""
    if name in IN_WORDS:
        print(IN_WORDS[name](part))
    else:
        _print_table(table_of_dictionaries(part))
        _print_plans(part)


def _print_table(table: Content) -> None:
    shown = Table(title=table.title, title_justify="left")
    for column in table.columns:
        shown.add_column(column, justify="left" if column in ("shape", "preset") else "right")
    for row in table.rows:
        shown.add_row(*row)
    plain_console(width=160, soft_wrap=False).print(shown)


def _print_plans(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row.get('preset', '')} {Shape(*row['shape'])}: {row['plan']}".lstrip())


def _shape_cells(row: dict[str, Any]) -> list[str]:
    rate = row["model_steps_per_second"][ENGINE]
    ratios = [f"{row['ratios'][name]:.2f}x" if name in row["ratios"] else MISSING for name in (*PEERS, *CONTROLS)]
    return [
        str(Shape(*row["shape"])),
        _rate(rate),
        f"{row['gflops']:.1f}",
        f"{row['share_of_products']:.0%}",
        f"{row['compile_seconds']:.1f}",
        f"{row['memory_mib']:,.0f}",
        *ratios,
    ]


def _dictionary_cells(row: dict[str, Any], others: tuple[str, ...]) -> list[str]:
    absent = {ALL_CODES: "is that", SAELENS: MISSING}
    ratios = [f"{row['ratios'][name]:.2f}x" if name in row["ratios"] else absent[name] for name in others]
    rate = row["model_steps_per_second"][ENGINE]
    return [row["preset"], str(Shape(*row["shape"])), str(row["active"]), _rate(rate), *ratios]


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"

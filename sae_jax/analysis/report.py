"""A finished sweep in words: the table of its cells."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import xarray as xr
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from sae_jax.analysis.cells import lane_measures, short, with_presence, without_constants
from sae_jax.analysis.formats import heading_of
from sae_jax.analysis.summary import cell_table, digits_of, entry
from sae_jax.sweeps.lane_warnings import target

MOST_ROWS = 40


class Column(NamedTuple):
    """A column of a table: its heading, its cells, whether it is left out where a terminal is narrow, its colour."""

    heading: str
    cells: Sequence[str]
    optional: bool = False
    colour: str | None = None


def print_table(console: Console, dataset: xr.Dataset) -> None:
    """Print a row for every cell: its settings and its held-out measures, mean +- sample standard deviation over seeds.

    Where the terminal is too narrow, measures are left out from the right, and named.
    """
    dataset = without_constants(with_presence(dataset))
    if not lane_measures(dataset):
        return
    table = cell_table(dataset)
    rho = target(dataset)
    points = [({} if rho is None or rho.dims else {"rho": rho.item()}) | point for point in table.points[:MOST_ROWS]]
    columns = [Column(name, [short(point[name]) for point in points]) for name in (points[0] if points else {})]
    for i, (name, means) in enumerate(table.means.items()):
        digits, sign = digits_of(means), plus_minus(console)
        rows = zip(means[:MOST_ROWS], table.deviations[name][:MOST_ROWS], strict=True)
        columns.append(Column(heading_of(name), [entry(*row, digits, sign) for row in rows], i > 0))
    if (table.most_counted != table.seeds).any():
        columns.append(Column("n", [str(count) for count in table.most_counted[:MOST_ROWS]]))
    if table.diverged.any():
        cells = [f"{count} of {table.seeds}" for count in table.diverged[:MOST_ROWS]]
        columns.append(Column("diverged", cells, colour="red"))
    print_columns(console, f"held-out data, {table.caption}", columns, len(table.points))


def print_columns(console: Console, title: str, columns: Sequence[Column], total: int) -> None:
    """Print a table no wider than the terminal: of columns that are optional those at the right are left out first.

    Args:
        console: the terminal.
        title: above the table.
        columns: of the rows that are shown.
        total: rows that there are.
    """
    columns, left_out = list(columns), list[str]()
    while _width(console, _table(columns)) > console.width and any(column.optional for column in columns):
        last = max(place for place, column in enumerate(columns) if column.optional)
        left_out.insert(0, columns.pop(last).heading)
    width = max(console.width, _width(console, _table(columns)))
    console.print(textwrap.fill(title, width), highlight=False)
    console.print(_table(columns), width=width, crop=False)
    if left_out:
        console.print(
            textwrap.fill(f"left out, for want of room: {', '.join(left_out)}; summary.csv has them", width),
            highlight=False,
        )
    shown = len(columns[0].cells) if columns else 0
    if total > shown:
        console.print(f"{total - shown} more cells are in summary.csv", highlight=False)


def plus_minus(console: Console) -> str:
    """The sign between a mean and its deviation, as the terminal can show it."""
    return "±" if "utf" in console.encoding.lower() else "+-"


def _table(columns: Sequence[Column]) -> Table:
    """A table whose headings are wrapped to what stands below them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for column in columns:
        words = column.heading.replace("_", " ") if len(column.heading) > 12 else column.heading
        width = max(map(len, [*words.split(), *column.cells]))
        table.add_column(textwrap.fill(words, width), justify="right", style=column.colour, no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def _width(console: Console, table: Table) -> int:
    wide = console.options.update(width=10_000)
    return Measurement.get(console, wide, table).maximum

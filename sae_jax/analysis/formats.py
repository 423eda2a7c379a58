"""A table of cells as CSV, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from sae_jax.analysis.cells import short
from sae_jax.analysis.summary import CellTable, digits_of, entry
from sae_jax.settings import printable

LATEX = str.maketrans(
    {letter: "\\" + letter for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def as_csv(table: CellTable) -> str:
    """Numbers as they are: of every measure the mean, the sample standard deviation, NAME_sd, and its seeds, NAME_n."""
    columns: dict[str, Any] = (
        {name: [point[name] for point in table.points] for name in table.points[0]} if table.points else {}
    )
    for name in table.means:
        columns |= {name: table.means[name], f"{name}_sd": table.deviations[name], f"{name}_n": table.counts[name]}
    return pd.DataFrame(columns).to_csv(index=False, float_format="%.9g")


def as_markdown(table: CellTable) -> str:
    """A table of GitHub's Markdown, and its caption below."""
    heading, *rows = text_rows(table, " ± ")
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (heading, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    rule = "|" + " ---: |" * len(heading)
    caption = table.caption.replace("+-", "±")
    return "\n".join([lines[0], rule, *lines[1:], "", f"{caption}."]) + "\n"


def as_latex(table: CellTable) -> str:
    """A tabular with the rules of booktabs; its caption is a comment."""
    heading, *rows = [[_latex(cell) for cell in row] for row in text_rows(table, " +- ")]
    lines = [
        "% \\usepackage{booktabs}",
        f"% {table.caption}",
        f"\\begin{{tabular}}{{{'r' * len(heading)}}}",
        "\\toprule",
        " & ".join(heading) + r" \\",
        "\\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, tuple[str, Callable[[CellTable], str]]] = {
    "csv": (".csv", as_csv),
    "markdown": (".md", as_markdown),
    "latex": (".tex", as_latex),
}


def text_rows(table: CellTable, sign: str) -> list[list[str]]:
    """The heading and the rows of a table, as text; with a column n where not every seed counts in every row."""
    columns: list[Sequence[str]] = []
    axes = list(table.points[0]) if table.points else []
    columns += [[axis, *(short(point[axis]) for point in table.points)] for axis in axes]
    for name, means in table.means.items():
        digits = digits_of(means, 4)
        cells = [
            entry(mean, deviation, digits, sign) for mean, deviation in zip(means, table.deviations[name], strict=True)
        ]
        columns.append([heading_of(name), *cells])
    if (table.most_counted != table.seeds).any():
        columns.append(["n", *(str(count) for count in table.most_counted)])
    return [[printable(cell) for cell in row] for row in zip(*columns, strict=True)]


def heading_of(name: str) -> str:
    """A measure's name in a heading."""
    words = name.removeprefix("eval_").replace("_", " ")
    known = {"l0": "L0", "dead fraction": "dead share", "truth mcc": "MCC", "truth mmcs": "MMCS", "truth f1": "F1"}
    return known.get(words, words.removeprefix("truth "))


def _latex(cell: str) -> str:
    mean, sign, deviation = cell.partition(" +- ")
    return rf"${mean} \pm {deviation}$" if sign else mean.translate(LATEX)

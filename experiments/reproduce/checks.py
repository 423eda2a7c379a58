"""What a reproduction checks: a measured value beside what was published, or beside a law or a control of our own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

NUMBER, ORDER, EXPECTATION = "number", "order", "own"
KINDS = {
    NUMBER: "published numbers",
    ORDER: "published orders and pictures",
    EXPECTATION: "laws and controls of our own",
}
# How well a published value is known: read in the source itself or its authors' code, read in another source that
# quotes it, or quoted from memory.
PRIMARY, SECONDARY, RECALLED = "primary", "secondary", "recalled"
GRADES = (PRIMARY, SECONDARY, RECALLED)
# The columns of a table on a terminal; a saved check has `kind`, `source`, `grade`, `seeds` and `why` beside them.
COLUMNS = ("what", "published", "measured", "tolerance", "met")


class Source(NamedTuple):
    """Where something was published, down to the table or section, and how well that is known here: one of GRADES."""

    words: str
    grade: str


@dataclasses.dataclass(frozen=True)
class Check:
    """A measured value beside the one published or expected; `number`, `order` and `expectation` make the three kinds.

    Attributes:
        kind: one of KINDS.
        what: what is measured, with its units.
        published: the number, or the claim in its source's words; of our own checks, what is to be expected.
        source: where it was published; None of our own checks.
        seeds: the values measured, one for every seed; their mean is held against the tolerance.
        low, high: the tolerance, both ends inside; without either the value is only shown.
        why: why the tolerance is what it is, or why there is none.

    Raises:
        ValueError: a part is missing, or contradicts the kind.
    """

    kind: str
    what: str
    published: str
    source: Source | None
    seeds: tuple[float, ...]
    low: float
    high: float
    why: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}: got {self.kind!r}")
        if (self.source is None) != (self.kind == EXPECTATION):
            raise ValueError(f"what was published, and nothing else, needs a source: got {self.source} of {self.what}")
        if self.source and (self.source.grade not in GRADES or not self.source.words):
            raise ValueError(f"a source needs words and a grade of {', '.join(GRADES)}: got {self.source}")
        if not all(words.strip() for words in (self.what, self.published, self.why)):
            raise ValueError(f"a check must say what, what is expected and why that tolerance: got {self}")
        if not self.seeds:
            raise ValueError(f"a check needs a measured value: got none of {self.what}")
        if self.kind == NUMBER:
            float(self.published)

    @property
    def measured(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.seeds))

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; None of a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None

    @property
    def bounded(self) -> bool:
        """Whether there is a tolerance."""
        return (self.low, self.high) != (-math.inf, math.inf)

    @property
    def passed(self) -> bool:
        return self.low <= self.measured <= self.high

    @property
    def tolerance(self) -> str:
        if not self.bounded:
            return "none"
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of COLUMNS, as text."""
        spread = "" if self.spread is None else f" +- {self.spread:.2g} ({len(self.seeds)} seeds)"
        met = ("yes" if self.passed else "no") if self.bounded else "not asked"
        return self.what, self.published, f"{self.measured:.4g}{spread}", self.tolerance, met

    @property
    def content(self) -> dict[str, Any]:
        """What is saved of it, as values of JSON."""
        source, grade = self.source or ("", "")
        more = {"kind": self.kind, "source": source, "grade": grade, "seeds": list(self.seeds), "why": self.why}
        return dict(zip(COLUMNS, self.row, strict=True)) | more


def number(
    what: str,
    published: str,
    source: Source,
    measured: ArrayLike,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    why: str,
) -> Check:
    """A published number, in the digits of its source, beside the measured one, a value or one for every seed."""
    return Check(NUMBER, what, published, source, _values(measured), low, high, why)


def order(
    what: str,
    published: str,
    source: Source,
    measured: ArrayLike,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    why: str,
) -> Check:
    """A published order, shape or picture, in its source's words, beside the value that would show it."""
    return Check(ORDER, what, published, source, _values(measured), low, high, why)


def expectation(
    what: str,
    expected: str,
    measured: ArrayLike,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    why: str,
) -> Check:
    """A law, a control or a comparison with another program: nothing of it was published as a result."""
    return Check(EXPECTATION, what, expected, None, _values(measured), low, high, why)


def _values(measured: ArrayLike) -> tuple[float, ...]:
    return tuple(np.atleast_1d(np.asarray(measured, float)).ravel().tolist())


def markdown_tables(saved: Iterable[tuple[str, list[dict[str, Any]]]]) -> str:
    """A table for every kind, a row for every check, of the saved checks of reproductions, by name."""
    reports = list(saved)
    parts = []
    for kind, title in KINDS.items():
        published = "expected" if kind == EXPECTATION else "published (source; how it is known)"
        columns = ("reproduction", "what", published, "measured", "tolerance, and why", "met")
        lines = [f"### {title.capitalize()}", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
        for name, checks in reports:
            for check in (check for check in checks if check["kind"] == kind):
                source = "" if kind == EXPECTATION else f" ({check['source']}; {check['grade']})"
                cells = (
                    f"`{name}`",
                    check["what"],
                    check["published"] + source,
                    check["measured"],
                    f"{check['tolerance']}: {check['why']}",
                    check["met"],
                )
                lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)

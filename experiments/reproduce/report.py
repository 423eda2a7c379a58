"""What a reproduction reports, on the terminal, as JSON and as a row of the README's table."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax import DataConfig, UserError
from sae_jax.commands.environment import write_whole
from sae_jax.storage.atomic import read_file


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reproduction may be told.

    Attributes:
        quick: a small size, for tests: the same code, looser numbers.
        images: a .npy file of images to use instead of the photographs; empty for those.
        data_dir: folder of prepared tensorflow-datasets, for those that need MNIST; empty is TFDS's own default.
    """

    quick: bool = False
    images: str = ""
    data_dir: str = ""

    @property
    def mnist(self) -> DataConfig:
        """Where MNIST is read from."""
        return DataConfig(dataset="tfds:mnist", data_dir=self.data_dir)


@dataclasses.dataclass(frozen=True)
class Check:
    """One published number or claim beside the measured one.

    Attributes:
        what: what is measured.
        published: the number or claim, in its source's words where it is no number.
        measured: the number measured.
        low, high: the stated tolerance, which the measured number must meet; without either it is only shown.
    """

    what: str
    published: str
    measured: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def passed(self) -> bool:
        return self.low <= self.measured <= self.high

    @property
    def difference(self) -> str:
        """Measured minus published, where the published one is a number."""
        try:
            return f"{self.measured - float(self.published):+.3g}"
        except ValueError:
            return ""

    @property
    def tolerance(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "none"
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"

    @property
    def row(self) -> tuple[str, ...]:
        verdict = "" if self.tolerance == "none" else "yes" if self.passed else "no"
        return self.what, self.published, f"{self.measured:.4g}", self.difference, self.tolerance, verdict


COLUMNS = ("what", "published", "measured", "difference", "tolerance", "met")


@dataclasses.dataclass(frozen=True)
class Report:
    """All checks of a reproduction and its figure."""

    checks: list[Check]
    figure: Figure

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def save(self, name: str, source: str, options: Options, folder: Path) -> list[Path]:
        """Write NAME.json and NAME.png; returns their paths.

        Raises:
            UserError: they cannot be written.
        """
        content: dict[str, Any] = {
            "name": name,
            "source": source,
            "options": {"quick": options.quick, "images": options.images},
            "passed": self.passed,
            "checks": [dict(zip(COLUMNS, check.row, strict=True)) for check in self.checks],
        }
        paths = [folder / f"{name}.json", folder / f"{name}.png"]
        drawn = io.BytesIO()
        self.figure.savefig(drawn, dpi=120, bbox_inches="tight")
        plt.close(self.figure)
        for path, written in zip(
            paths, ((json.dumps(content, indent=2) + "\n").encode(), drawn.getvalue()), strict=True
        ):
            write_whole(path, written, "--out")
        return paths


def markdown_table(folder: Path) -> str:
    """The table of all saved reports, for the README.

    Raises:
        UserError: a file of the folder is no report.
    """
    lines = ["| reproduction | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(read_file(path))
            for i, check in enumerate(content["checks"]):
                name = f"`{content['name']}`: {content['source']}" if i == 0 else ""
                cells = [name, *(check[column] for column in COLUMNS)]
                lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        except Exception as error:  # Anything may be in a file.
            raise UserError(
                f"a saved report must be as it was written: got {path}: {error!r}; reproduce it again"
            ) from None
    return "\n".join(lines)

"""What a reproduction may be told, and what it reports: JSON, a figure, rows of the tables."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.reproduce.checks import Check, markdown_tables
from sae_jax import DataConfig, UserError
from sae_jax.commands.environment import write_whole
from sae_jax.storage.atomic import mend_unread, read_file, reason_of


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reproduction may be told.

    Attributes:
        quick: a small size, for tests: the same code, looser numbers.
        images: a .npy file of images to use instead of the photographs; empty for those.
        white: whether those images are white already, so that they are not whitened again.
        data_dir: folder of prepared tensorflow-datasets, for those that need MNIST; empty is TFDS's own default.
    """

    quick: bool = False
    images: str = ""
    white: bool = False
    data_dir: str = ""

    @property
    def content(self) -> dict[str, Any]:
        """Those that change what is measured, as values of JSON; of images the path, and a digest of the file."""
        digest = ""
        with contextlib.suppress(OSError):
            digest = hashlib.sha256(read_file(Path(self.images))).hexdigest()[:12] if self.images else ""
        return {"quick": self.quick, "images": self.images, "white": self.white, "images_sha256": digest}

    @property
    def mnist(self) -> DataConfig:
        """Where MNIST is read from."""
        return DataConfig(dataset="tfds:mnist", data_dir=self.data_dir)


@dataclasses.dataclass(frozen=True)
class Report:
    """All checks of a reproduction and its figure."""

    checks: list[Check]
    figure: Figure

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def save(self, name: str, source: str, options: Options, made: dict[str, Any], folder: Path) -> list[Path]:
        """Write NAME.png, then NAME.json: the figure of a report that is there is there, too. Returns their paths.

        Args:
            name, source: of the reproduction.
            options: what it was told.
            made: of what, where and how long, from `identity.provenance`.
            folder: where to.

        Raises:
            UserError: they cannot be written.
        """
        content: dict[str, Any] = {
            "name": name,
            "source": source,
            "options": options.content,
            "made": made,
            "passed": self.passed,
            "checks": [check.content for check in self.checks],
        }
        paths = [folder / f"{name}.png", folder / f"{name}.json"]
        drawn = io.BytesIO()
        self.figure.savefig(drawn, dpi=120, bbox_inches="tight")
        plt.close(self.figure)
        text = (json.dumps(content, indent=2) + "\n").encode()
        for path, written in zip(paths, (drawn.getvalue(), text), strict=True):
            write_whole(path, written, "--out")
        return paths


def saved_tables(folder: Path) -> str:
    """The tables of all saved reports, for docs/reproductions.md.

    Raises:
        UserError: the folder cannot be read, or holds none, or a file of it is no report.
    """
    reports = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except OSError as error:
        fix = mend_unread(error, "check the path")
        raise UserError(f"--out must be the folder of the reports: got {folder}: {reason_of(error)}; {fix}") from None
    if not paths:
        raise UserError(f"--out must be the folder of the reports: got {folder}, without any; check the path")
    for path in paths:
        try:
            content = json.loads(read_file(path))
            markdown_tables([(content["name"], content["checks"])])
            reports.append((content["name"], content["checks"]))
        except Exception as error:  # Anything may be in a file.
            fix = mend_unread(error, "reproduce it again")
            raise UserError(f"a saved report must be as it was written: got {path}: {error!r}; {fix}") from None
    return markdown_tables(reports)

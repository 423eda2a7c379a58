"""The 8x8 handwritten digits that ship inside scikit-learn."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sae_jax.data.config import DataConfig
from sae_jax.data.rows import Rows
from sae_jax.settings import UserError


def read(argument: str, config: DataConfig) -> Rows:
    """1,797 digits in [0, 1].

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
    """
    if argument:
        raise UserError(f"dataset digits takes nothing after a colon: got {config.dataset}; use digits")
    # Found, not imported: scikit-learn and what it needs take two seconds to import.
    (home,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
    with gzip.open(Path(home) / "datasets" / "data" / "digits.csv.gz", "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",")
    name = "scikit-learn's handwritten digits"
    return Rows(table[:, :-1] / 16.0, name, labels=table[:, -1].astype(int), image_shape=(8, 8))

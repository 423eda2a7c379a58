"""Tables of vectors with a name a row: the token embeddings inside a package of a language model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sae_jax.data.config import DataConfig
from sae_jax.data.files import digest
from sae_jax.data.packages import Package
from sae_jax.data.rows import Rows
from sae_jax.settings import unknown
from sae_jax.storage.tensors import open_tensors


class Source(NamedTuple):
    """Where a table lies.

    Attributes:
        package: that brings it.
        vectors, array: the safetensors file and its array, [tokens, inputs].
        vocabulary: the tokenizer's file of JSON, whose model.vocab has the row of every token.
    """

    package: Package
    vectors: str
    array: str
    vocabulary: str


# Static embeddings that Llama 2's were distilled to, of its 32,000 tokens.
TABLES = {
    "wordllama": Source(
        Package("wordllama", ">=0.3.9,<0.5", "the word vectors"),
        "wordllama/weights/l2_supercat_256.safetensors",
        "embedding.weight",
        "wordllama/tokenizers/l2_supercat_tokenizer_config.json",
    )
}


class Table(NamedTuple):
    """Vectors [tokens, inputs], the token of each, and the file that the vectors were read from."""

    vectors: Float[np.ndarray, "tokens inputs"]
    tokens: tuple[str, ...]
    path: Path


def read(name: str, config: DataConfig) -> Rows:
    """A table's vectors, named by their tokens.

    Raises:
        UserError: the table is unknown, or its package is not installed.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    table = table_of(name)
    label = f"token embeddings of {TABLES[name].package.name}"
    return Rows(table.vectors, label, names=table.tokens, normalize="length", digest=digest(str(table.path)))


def table_of(name: str) -> Table:
    """The vectors and tokens of one of `TABLES`, in the order of its rows.

    Raises:
        UserError: its package is not installed, or has not the files that are known of it.
    """
    source = TABLES[name]
    with source.package.needed():
        path = source.package.path(source.vectors)
        text = source.package.path(source.vocabulary).read_text(encoding="utf-8")
        rows = json.loads(text)["model"]["vocab"]
        with open_tensors(path) as file:
            vectors = file.get_tensor(source.array).astype(np.float32)
        tokens = tuple(sorted(rows, key=rows.__getitem__))
        if sorted(rows.values()) != list(range(len(vectors))):
            raise ValueError("other rows than tokens")
    return Table(vectors, tokens, path)

"""Rows as a folder of shards, which appears in one move."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sae_jax.data.rows import Rows
from sae_jax.data.shards import ARRAY, DTYPES, HELDOUT, LABELS, NAMES
from sae_jax.settings import UserError
from sae_jax.storage.atomic import write_file, writing
from sae_jax.storage.new_folder import filled
from sae_jax.storage.tensors import save_tensors

BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}
# What a reader might take for the end of a line.
LINE_ENDS = {ord(sign): sign.encode("unicode_escape").decode() for sign in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


def write_rows(rows: Rows, folder: Path, shards: int, dtype: str, flag: str) -> None:
    """Write rows into a new folder: 00000.safetensors, ..., and names.txt and labels.npy where the source has them.

    What the source holds out becomes a folder heldout in it, in the same form, of no more shards than rows.

    Args:
        rows: of a source.
        folder: a new or an empty one.
        shards: files; the rows are spread over them evenly, in their order.
        dtype: of the numbers, one of `BY_NAME`.
        flag: what the user calls the folder.

    Raises:
        UserError: there are fewer rows than shards, a value is too large for the dtype, or the folder cannot be made.
    """
    if shards > len(rows.samples):
        raise UserError(f"shards must be at most the {len(rows.samples)} rows: got {shards}; use fewer")
    with writing(folder, flag, "choose another"), filled(folder) as unfinished:
        _write(unfinished, rows.samples, rows.names, rows.labels, shards, dtype)
        if rows.heldout is not None:
            inner, fewer = unfinished / HELDOUT, min(shards, len(rows.heldout))
            inner.mkdir()
            _write(inner, rows.heldout, rows.heldout_names, rows.heldout_labels, fewer, dtype)


def _write(
    folder: Path,
    samples: np.ndarray,
    names: Sequence[str] | None,
    labels: np.ndarray | None,
    shards: int,
    dtype: str,
) -> None:
    bounds = np.linspace(0, len(samples), shards + 1).astype(int).tolist()
    for number in range(shards):
        tensors = {ARRAY: _converted(samples[bounds[number] : bounds[number + 1]], dtype)}
        write_file(folder / f"{number:05d}.safetensors", partial(save_tensors, tensors=tensors, metadata={}))
    if names is not None:
        lines = "".join(f"{name.translate(LINE_ENDS)}\n" for name in names)
        write_file(folder / NAMES, lines.encode("utf-8", "backslashreplace"))
    if labels is not None:
        content = io.BytesIO()
        np.save(content, np.asarray(labels), allow_pickle=False)
        write_file(folder / LABELS, content.getvalue())


def _converted(samples: np.ndarray, dtype: str) -> np.ndarray:
    """Rows in another precision, one after another."""
    with np.errstate(over="ignore"):
        part = np.ascontiguousarray(samples, BY_NAME[dtype])
    if not np.all(np.isfinite(part)):
        largest = np.max(np.abs(samples.astype(float)))
        raise UserError(f"dtype {dtype} must hold every value: got one of size {largest:.3g}; use float32 or bfloat16")
    return part

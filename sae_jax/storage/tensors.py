"""Safetensors files written piece by piece and read as maps; the library's own functions hold every array in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import safe_open

from sae_jax.storage.arrays import pieces
from sae_jax.storage.atomic import check_regular

METADATA = "__metadata__"
# Names of the format: parameters are F32, a state of training has counts and flags beside them.
DTYPES = {"F32": "<f4", "I32": "<i4", "BOOL": "|b1"}
# Samples may be written in half the bytes; no parameters are.
HALVES = {"F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
WRITTEN = {name: np.dtype(dtype) for name, dtype in DTYPES.items()} | HALVES


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays into a safetensors file, integers, booleans and half precision as such, all else as float32.

    The format: the header's length as 8 little-endian bytes, the header as JSON, then the arrays in C order.

    Args:
        path: replaced where it exists.
        tensors: arrays by name.
        metadata: text by name.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, Any] = {METADATA: dict(metadata)}
    end = 0
    for name, values in tensors.items():
        dtype = _dtype_of(values)
        start, end = end, end + WRITTEN[dtype].itemsize * values.size
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for values in tensors.values():
            for _, part in pieces(values):
                # As bytes: bfloat16 lends no buffer.
                stream.write(np.ascontiguousarray(part, WRITTEN[_dtype_of(values)]).view(np.uint8).data)


def _dtype_of(values: np.ndarray) -> str:
    for name, dtype in HALVES.items():
        if values.dtype == dtype:
            return name
    return {"i": "I32", "b": "BOOL"}.get(values.dtype.kind, "F32")


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, open in the library, which says of whatever keeps it from a file that there is none.

    Raises:
        SafetensorError, OSError: the file is not what its name says, or cannot be read.
    """
    check_regular(path)
    with path.open("rb"), safe_open(path, framework="numpy") as file:
        yield file


def map_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, mapped: a part is read when it is used; and the file's metadata.

    The arrays cannot be written to; change a copy.

    Raises:
        SafetensorError, OSError: the file is not what its name says, or cannot be read.
        ValueError: an array is of a kind that is never written.
    """
    with open_tensors(path) as file, path.open("rb") as stream:
        metadata = dict(file.metadata() or {})  # The library has checked the header: every array lies inside the file.
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    tensors: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name == METADATA:
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} must be {', '.join(DTYPES)}: got {entry['dtype']}")
        offset = 8 + size + entry["data_offsets"][0]
        tensors[name] = np.memmap(path, DTYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))
    return tensors, metadata

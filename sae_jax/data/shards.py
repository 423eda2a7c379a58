"""Folders of shards: files of rows of one width, which together may be larger than memory.

Rows are read by their numbers, each where it lies in its file, and nothing stays open or mapped: a page of a mapped
file counts as the process's own memory, and one whose file was cut short ends the process with a signal.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int

from sae_jax.data.checks import LARGEST_SAMPLE
from sae_jax.data.config import shown
from sae_jax.data.files import HEADERS, LONGEST_HEADER, MissingFile
from sae_jax.data.parquet import as_npy
from sae_jax.settings import UserError
from sae_jax.storage.atomic import check_regular, mend_unread, reason_of

# By the names of safetensors.
DTYPES: dict[str, Any] = {"F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype("<f4")}
# What the one array of rows is called where a file holds others beside it.
ARRAY = "activations"
# Of safetensors' header, in bytes, as in its own library.
LONGEST = 100_000_000
NAMES, LABELS, HELDOUT = "names.txt", "labels.npy", "heldout"


class Shard(NamedTuple):
    """A file of rows.

    Attributes:
        path: of the file.
        rows, width: of its array.
        dtype: of its numbers.
        numbers: the file that they are read from, which is another one where the shard's own is compressed.
        offset: byte of that file at which they begin.
    """

    path: Path
    rows: int
    width: int
    dtype: np.dtype
    numbers: Path
    offset: int


class Shards(NamedTuple):
    """Shards in the order of their names, their rows numbered through.

    Attributes:
        shards: at least one, all of one width.
        starts: number of the first row of each, and the number of all rows, [shards + 1].
    """

    shards: tuple[Shard, ...]
    starts: Int[np.ndarray, " bounds"]

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """Values of a row."""
        return self.shards[0].width

    def read(self, numbers: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        """The rows of some numbers, in their order, as float32.

        Raises:
            UserError: a shard has vanished, was cut short, or holds what cannot be trained on; the message names it.
        """
        result = np.empty((len(numbers), self.width), np.float32)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], self.starts)
        for shard, start, first, end in zip(self.shards, self.starts, bounds[:-1], bounds[1:], strict=False):
            if first < end:
                places = order[first:end]
                result[places] = _read(shard, numbers[places] - start)
        return result


def open_shards(folder: Path) -> Shards:
    """The shards of a folder: every .npy but labels.npy, .safetensors and .parquet file.

    Raises:
        UserError: there is no such folder, no shard in it, or one is not what its name says, or of another width.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in FORMATS and path.name != LABELS)
    except FileNotFoundError:
        raise MissingFile("activations", shown(folder), "use activations:DIR", "folder") from None
    except OSError as error:
        fix = mend_unread(error, "use activations:DIR")
        raise UserError(
            f"activations must be a folder of shards that can be read: got {shown(folder)}: {reason_of(error)}; {fix}"
        ) from None
    if not paths:
        raise UserError(
            f"a folder of shards must hold {', '.join(FORMATS)} files: got none in {shown(folder)}; write some, "
            "[rows, width] each"
        )
    shards = tuple(map(_opened, paths))
    for shard in shards[1:]:
        if shard.width != shards[0].width:
            raise UserError(
                f"shards must be of one width: got {shards[0].width} in {shards[0].path.name} and {shard.width} in "
                f"{shown(shard.path)}; leave one out"
            )
    return Shards(shards, np.cumsum([0, *(shard.rows for shard in shards)]))


def names_at(folder: Path, rows: int, wanted: Sequence[int] | np.ndarray) -> tuple[str, ...] | None:
    """The lines of names.txt that belong to some rows; None where the folder has no such file.

    Args:
        folder: of the shards.
        rows: how many they hold; so many lines must there be.
        wanted: numbers of rows.

    Raises:
        UserError: there are more or fewer lines, or they are no UTF-8 text.
    """
    path, places = folder / NAMES, set(map(int, wanted))
    if not os.path.lexists(path):
        return None
    lines, number = dict[int, str](), 0
    try:
        check_regular(path)
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                if number in places:
                    lines[number] = line.rstrip("\r\n")
                number += 1
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "other bytes"
        fix = mend_unread(error, "write it anew")
        raise UserError(f"{shown(path)} must be a file of UTF-8 text: got {reason}; {fix}") from None
    if number != rows:
        raise UserError(f"{shown(path)} must have a line for each of {rows} rows: got {number}; write it anew")
    return tuple(lines[int(place)] for place in wanted)


def _read(shard: Shard, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
    """Rows of one shard as float32."""
    size = shard.width * shard.dtype.itemsize
    memory = bytearray(size * len(rows))
    view, end = memoryview(memory), 0
    try:
        check_regular(shard.numbers)
        descriptor = os.open(shard.numbers, os.O_RDONLY)
        try:
            for row in rows.tolist():
                if os.preadv(descriptor, [view[end : end + size]], shard.offset + row * size) != size:
                    raise UserError(
                        f"shard {shown(shard.path)} must hold {shard.rows} rows, as at the start: got a file that ends "
                        f"before row {row}; put it back as it was"
                    )
                end += size
        finally:
            os.close(descriptor)
    except OSError as error:
        fix = mend_unread(error, "put it back as it was")
        raise UserError(f"shard {shown(shard.path)} must stay readable: got {reason_of(error)}; {fix}") from None
    values = np.frombuffer(memory, shard.dtype).reshape(len(rows), shard.width).astype(np.float32)
    if not np.max(np.abs(values)) <= LARGEST_SAMPLE:
        bad = ~np.all(np.abs(values) <= LARGEST_SAMPLE, axis=1)
        raise UserError(
            f"shard {shown(shard.path)} must hold finite numbers of at most {LARGEST_SAMPLE:g}: got others in row "
            f"{rows[bad].min()}; write it anew, or take it out of the folder"
        )
    return values


def _opened(path: Path) -> Shard:
    """A shard by what its file says of itself, which must agree with the file's size."""
    try:
        check_regular(path)
        shard = FORMATS[path.suffix](path)
        size = shard.numbers.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        fix = mend_unread(error, "write it anew, or take it out of the folder")
        raise UserError(f"shard {shown(path)} must be a whole file of rows: got {reason_of(error)}; {fix}") from None
    needed = shard.offset + shard.rows * shard.width * shard.dtype.itemsize
    if size < needed:
        raise UserError(
            f"shard {shown(path)} must hold {shard.rows} rows of {shard.width}, {needed} bytes: got {size}; write it "
            "anew, or take it out of the folder"
        )
    return shard


def _of_npy(path: Path) -> Shard:
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        shape, column_major, dtype = HEADERS[version](stream, max_header_size=LONGEST_HEADER)
        # NumPy saves bfloat16 as two bytes without a meaning.
        dtype = DTYPES["BF16"] if dtype == np.dtype("V2") else dtype
        if column_major:
            raise ValueError("an array in column order")
        return _shard(path, shape, dtype, stream.tell())


def _of_safetensors(path: Path) -> Shard:
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= min(path.stat().st_size, LONGEST):
            raise ValueError("no header")
        header = json.loads(stream.read(size))
    arrays = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(arrays) != 1 and ARRAY not in arrays:
        raise ValueError(f"{len(arrays)} arrays, none of which is called {ARRAY}")
    entry = arrays[ARRAY] if ARRAY in arrays else next(iter(arrays.values()))
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"numbers of kind {entry['dtype']}")
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if any(not isinstance(value, int) or value < 0 for value in (*shape, start, end)):
        raise ValueError(f"shape {shape} at bytes {start} to {end}")
    shard = _shard(path, tuple(shape), DTYPES[entry["dtype"]], 8 + size + start)
    if end - start != shard.rows * shard.width * shard.dtype.itemsize:
        raise ValueError(f"{end - start} bytes for shape {shape}")
    return shard


def _of_parquet(path: Path) -> Shard:
    return _of_npy(as_npy(path))._replace(path=path)


def _shard(path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> Shard:
    if len(shape) != 2 or not math.prod(shape):
        raise ValueError(f"an array of shape {list(shape)} instead of [rows, width]")
    if dtype not in DTYPES.values():
        raise ValueError(f"numbers of kind {dtype} instead of float16, bfloat16 or float32")
    return Shard(path, int(shape[0]), int(shape[1]), dtype, path, offset)


# What reads a file's header, by the end of its name.
FORMATS: dict[str, Callable[[Path], Shard]] = {
    ".npy": _of_npy,
    ".safetensors": _of_safetensors,
    ".parquet": _of_parquet,
}

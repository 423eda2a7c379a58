"""Parquet files of rows, whose numbers are compressed in groups, as .npy files in which a single row can be found."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sae_jax.data.packages import imported
from sae_jax.storage.atomic import PARTIAL, user_cache, write_file, writing

ROWS_AT_ONCE = 1024
# Decoded files that no run has read for so many days make room for the next one.
DAYS = 30


def as_npy(path: Path) -> Path:
    """A .npy file of a Parquet file's rows, in the user's cache; made where it is not there.

    The rows are its only column of lists of numbers. A file that was changed since is decoded again; what no run has
    read for 30 days is removed when another file is decoded.

    Raises:
        ValueError: there is no such column, several, or its lists are of several lengths.
        OSError: the file cannot be read.
        UserError: there is no room for the decoded file.
    """
    pyarrow = imported("pyarrow", "a Parquet shard")
    parquet = imported("pyarrow.parquet", "a Parquet shard")
    status = path.stat()
    known = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
    try:
        folder = user_cache() / "shards"
    except RuntimeError:
        raise ValueError("no home folder to decode it in (set XDG_CACHE_HOME)") from None
    target = folder / f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.npy"
    if target.is_file():
        with contextlib.suppress(OSError):  # Somebody else's cache.
            os.utime(target)
        return target
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    schema = file.schema_arrow
    kinds = dict(zip(schema.names, schema.types, strict=True))
    columns = [name for name, kind in kinds.items() if _is_rows(pyarrow, kind)]
    if len(columns) != 1:
        listed = ", ".join(f"{name} of {kind}" for name, kind in kinds.items())
        raise ValueError(f"{len(columns)} columns of lists of float16 or float32 ({listed})")
    half = pyarrow.types.is_float16(schema.field(columns[0]).type.value_type)
    dtype = np.dtype("<f2" if half else "<f4")

    def groups() -> Iterator[Any]:
        try:
            yield from file.iter_batches(ROWS_AT_ONCE, columns=columns)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(str(error)) from None

    def write(temporary: Path) -> None:
        width, rows = 0, file.metadata.num_rows
        with temporary.open("wb") as stream:
            for group in groups():
                column = group.column(0)
                lengths = column.value_lengths().to_numpy(zero_copy_only=False)
                if not width:
                    width = int(lengths[0])
                    header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, width)}
                    np.lib.format.write_array_header_1_0(stream, header)
                if column.null_count or np.any(lengths != width):
                    raise ValueError("lists of several lengths, or missing ones")
                stream.write(column.flatten().to_numpy(zero_copy_only=False).astype(dtype).tobytes())
        if not width:
            raise ValueError("no rows")

    with writing(folder, "XDG_CACHE_HOME", "make room there, or write shards as .safetensors"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unread(folder)
        write_file(target, write)
    return target


def _remove_unread(folder: Path) -> None:
    for path in [*folder.glob("*.npy"), *folder.glob(PARTIAL)]:
        with contextlib.suppress(OSError):  # Another process may be removing it.
            if time.time() - path.stat().st_mtime > DAYS * 86_400:
                path.unlink()


def _is_rows(pyarrow: Any, kind: Any) -> bool:
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    if not any(test(kind) for test in lists):
        return False
    return bool(pyarrow.types.is_float16(kind.value_type) or pyarrow.types.is_float32(kind.value_type))

"""Arrays that may be larger than memory: held in RAM or in files, and written and read piece by piece."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from sae_jax.settings import UserError

# Finds an array by its name, or makes it: f(name, shape, dtype).
Opener = Callable[[str, tuple[int, ...], Any], np.ndarray]
PIECE_BYTES = 2**24


def unwritable(folder: Path, reason: str | None) -> UserError:
    """The error for a run's folder that cannot be written to."""
    full = reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    fix = "make room and repeat the command" if full else "choose another --name or --runs"
    return UserError(f"the run's folder must be writable: got {folder}: {reason}; {fix}")


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_memory() -> Opener:
    """An opener whose arrays are held in RAM."""
    held: dict[str, np.ndarray] = {}

    def opened(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if name not in held:
            held[name] = np.empty(shape, dtype)
        return held[name]

    return opened


def nowhere(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An opener whose arrays keep nothing: each is one number, seen at every place."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape), writeable=True)


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[Opener]:
    """An opener whose arrays are maps of files NAME.npy in a folder of their own, made anew and taken away at the end.

    What is written through a map leaves the process's memory as soon as nothing refers to the map any longer.

    Raises:
        UserError: the folder cannot be written to, or has no room for an array.
    """
    made: set[Path] = set()

    def opened(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        path = folder / f"{name}.npy"
        try:
            if path in made:
                return np.lib.format.open_memmap(path, "r+")
            folder.mkdir(exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            made.add(path)
            if hasattr(os, "posix_fallocate"):
                # Writing to a map of a full disk would end the process with a signal.
                with path.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            return array
        except OSError as error:
            raise unwritable(folder, error.strerror) from None

    # What a process has left that was killed is of no use: it may have been writing it.
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield opened
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pieces(values: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """An array in parts of at most PIECE_BYTES, or of single numbers, in C order.

    Those of a mapped file leave memory again once the next one is asked for.

    Args:
        values: any array.

    Returns:
        (index of the part, its values, contiguous) one after another.
    """
    axis, below = values.ndim, values.itemsize
    while axis and below * values.shape[axis - 1] <= PIECE_BYTES:
        axis, below = axis - 1, below * values.shape[axis - 1]
    if not axis:
        yield ..., np.ascontiguousarray(values)
        return
    rows = max(1, PIECE_BYTES // below)
    for outer in np.ndindex(values.shape[: axis - 1]):
        for start in range(0, values.shape[axis - 1], rows):
            index = (*outer, slice(start, start + rows))
            yield index, np.ascontiguousarray(values[index])
            _release(values)


def _release(values: Any) -> None:
    """Let go of the pages of a mapped file that have been read; they are read again where they are wanted again."""
    while isinstance(values, np.ndarray):
        values = values.base
    if isinstance(values, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.madvise(mmap.MADV_DONTNEED)


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays as float32 into a safetensors file, piece by piece; the library's own function holds all of them.

    The format: the header's length as 8 little-endian bytes, the header as JSON, then the arrays in C order.

    Args:
        path: replaced where it exists.
        tensors: arrays by name.
        metadata: text by name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + 4 * values.size
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as stream:
        stream.write(len(words).to_bytes(8, "little") + words)
        for values in tensors.values():
            for _, part in pieces(values):
                stream.write(np.ascontiguousarray(part, "<f4").data)


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file, mapped: a part is read when it is used.

    They cannot be written to; change a copy.

    Raises:
        SafetensorError, OSError: the file is not what its name says, or cannot be read.
        ValueError: an array is not float32.
    """
    with safe_open(path, framework="numpy"):
        pass  # The library has checked the header now: every array lies inside the file.
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    tensors: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} must be F32: got {entry['dtype']}")
        offset = 8 + size + entry["data_offsets"][0]
        tensors[name] = np.memmap(path, "<f4", "r", offset, tuple(entry["shape"]))
    return tensors

"""Arrays that may be larger than memory: held in RAM or in files, and written and read piece by piece."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sae_jax.storage.atomic import remove_tree, writing

# Finds an array by its name, or makes it: f(name, shape, dtype).
Opener = Callable[[str, tuple[int, ...], Any], np.ndarray]
PIECE_BYTES = 2**24
# Of XLA's buffers on a CPU.
ALIGNMENT = 64


def in_memory() -> Opener:
    """An opener whose arrays are held in RAM."""
    arrays: dict[str, np.ndarray] = {}

    def array(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if name not in arrays:
            arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    return array


def no_storage(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An opener whose arrays keep nothing: each is one number, seen at every place."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape), writeable=True)


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[Opener]:
    """An opener whose arrays are maps of files NAME.npy in a folder of their own, made anew and taken away at the end.

    What is written through a map leaves the process's memory as soon as nothing refers to the map any longer.

    Raises:
        UserError: the folder cannot be written to, or has no room for an array.
    """
    names: set[str] = set()

    def array(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        path = folder / f"{name}.npy"
        with writing(folder):
            if name in names:
                return np.lib.format.open_memmap(path, "r+")
            folder.mkdir(exist_ok=True)
            values = np.lib.format.open_memmap(path, "w+", dtype, shape)
            names.add(name)
            if hasattr(os, "posix_fallocate"):
                # Writing to a map of a full disk would end the process with a signal.
                with path.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            return values

    # What a process has left that was killed is of no use: it may have been writing it.
    remove_tree(folder)
    try:
        yield array
    finally:
        remove_tree(folder)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty float32 array that begins where a CPU device would have it, so that placing it there copies nothing."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def is_aligned(values: Any) -> bool:
    """Whether an array lies as one of `aligned` does."""
    return isinstance(values, np.ndarray) and values.flags.c_contiguous and values.ctypes.data % ALIGNMENT == 0


def pieces(values: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """An array in parts of at most PIECE_BYTES, or of single numbers, in C order.

    Those of a mapped file leave memory again once the next one is asked for.

    Args:
        values: any array.

    Returns:
        (index of the part, its values, contiguous) one after another.
    """
    axis, row_bytes = values.ndim, values.itemsize
    while axis and row_bytes * values.shape[axis - 1] <= PIECE_BYTES:
        axis, row_bytes = axis - 1, row_bytes * values.shape[axis - 1]
    if not axis:
        yield ..., np.ascontiguousarray(values)
        return
    rows = max(1, PIECE_BYTES // row_bytes)
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

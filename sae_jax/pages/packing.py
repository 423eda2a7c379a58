"""Numbers of a page: arrays laid out one behind another, so that a browser reads them without parsing."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

# Bits of a float's fraction that are kept where a page need not be exact: an error of at most .012%.
FRACTION = 12
TYPES = {"f": "<f4", "i": "<i4", "u": "|u1"}


class Packer:
    """Lays arrays out one behind another; `put` says where each of them lies."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def put(self, values: Any, exact: bool = False) -> dict[str, Any]:
        """Where an array lies: {at, shape, type}; floats in single precision, and fewer bits of them unless exact.

        Args:
            values: floats, whole numbers within 32 bits, or bytes.
            exact: whether floats keep all bits of their fraction.
        """
        array = np.asarray(values)
        array = array.astype(TYPES["i" if array.dtype.kind == "b" else array.dtype.kind])
        if array.dtype.kind == "f" and not exact:
            array = rounded(array)
        content = array.tobytes()
        place = {"at": self._size, "shape": list(array.shape), "type": array.dtype.str[1:]}
        content += bytes(-len(content) % 4)  # A browser reads numbers of 4 bytes at multiples of 4.
        self._parts.append(content)
        self._size += len(content)
        return place

    def packed(self, content: dict[str, Any]) -> str:
        """Words and arrays as text: base64 of gzip of the length of the JSON (uint32), the JSON, the arrays."""
        words = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        words += b" " * (-len(words) % 4)
        whole = np.uint32(len(words)).tobytes() + words + b"".join(self._parts)
        return base64.b64encode(gzip.compress(whole, 6, mtime=0)).decode()


class Room:
    """How many bytes may still be put somewhere."""

    def __init__(self, size: float) -> None:
        self.left = size

    def take(self, size: float) -> bool:
        """Take so many bytes where they are left; whether they were."""
        enough = size <= self.left
        self.left -= size if enough else 0
        return enough


def rounded(values: np.ndarray) -> np.ndarray:
    """Floats in single precision, rounded to FRACTION bits of their fraction: the others are 0, and take no room."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    dropped = np.uint32(23 - FRACTION)
    halved = (bits + np.uint32(1 << (23 - FRACTION - 1))) >> dropped << dropped
    return np.where(np.isfinite(values), halved, bits).astype("<u4").view("<f4")


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers from low to high as 0 to 255; beyond them as the nearer end, and what is no number in the middle."""
    scaled = (np.asarray(values, float) - low) / max(high - low, 1e-30) * 255
    return np.clip(np.round(np.nan_to_num(scaled, nan=127.5)), 0, 255).astype(np.uint8)

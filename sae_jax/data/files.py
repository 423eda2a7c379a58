"""The user's own files: images to draw patches from, and arrays of samples."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sae_jax.data.checks import check_fits, checked
from sae_jax.data.config import DataConfig, shown
from sae_jax.data.patches import from_images
from sae_jax.data.room import SINGLE_BYTES, check_room
from sae_jax.data.rows import Rows
from sae_jax.data.samples import array_rows
from sae_jax.settings import UserError, nearest
from sae_jax.storage.atomic import mend_unread, reason_of

SAMPLES, LABELS = "samples", "labels"
MOST_NAMES = 5
# Versions of .npy; the third is for the names of columns.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Plain numbers need a tenth of it. Python's parser, which reads the header, may run out of stack on long ones.
LONGEST_HEADER = 1000


class MissingFile(UserError):
    """A file of samples, or a folder, that is not there; kind is the source, such as array, that was to read it."""

    def __init__(self, kind: str, path: str, fix: str, noun: str = "file") -> None:
        super().__init__(f"dataset {kind} needs a {noun} that exists: got {path}; {fix}")
        self.elsewhere = f"{kind}:NEW{'.npy' if noun == 'file' else ''}"


def read_images(path: str, config: DataConfig) -> Rows:
    """Patches of a .npy file of images [n, height, width]."""
    grey = "make them grey first, without alpha"
    images = checked(read(path, config.dataset)[0], shown(path), ("n", "height", "width"), grey)
    rows = from_images(list(images), config, f"patches of {len(images)} images in {Path(path).name}")
    return rows._replace(digest=digest(path))


def read_array(path: str, config: DataConfig) -> Rows:
    """Samples of a .npy or .npz file, [samples, features], with labels [samples] where a .npz holds both by name.

    `config.targets` may be a file of targets, [samples, outputs].
    """
    samples, labels = read(path, config.dataset)
    check_room(samples, config)
    if not config.targets:
        return array_rows(samples, shown(path), labels)._replace(digest=digest(path))
    targets = read(config.targets, f"array:{config.targets}")[0]
    rows = array_rows(samples, shown(path), labels, targets=targets, of_targets=shown(config.targets))
    return rows._replace(digest=digest(path) + digest(config.targets))


def digest(path: str) -> str:
    """The beginning of the SHA-256 digest of a file, by which it is known again where it has been moved."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def read(path: str, dataset: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The samples, and the labels if there are any, of a .npy or .npz file; pickled objects are refused, never loaded.

    The samples are the array of a .npy file, the only one of a .npz file, or the one called samples beside labels.

    Args:
        path, dataset: the file, and the setting that names it.

    Raises:
        MissingFile: there is no such file.
        UserError: it is not what its name says, or a .npz holds other arrays.
    """
    kind = dataset.partition(":")[0]
    if not path:
        raise UserError(f"dataset {kind} needs a file: got {dataset!r}; use {kind}:FILE.npy")
    file = Path(path)
    path = shown(path)
    try:
        if not file.is_file():
            neighbours = [Path(shown(other)) for other in file.parent.glob("*.np[yz]") if other.is_file()]
            raise MissingFile(kind, path, nearest(file, neighbours))
        with file.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
            stream.seek(0)
            if zipped:
                return _of_archive(stream, path)
            return _array(stream, file.stat().st_size, file), None
    except UserError:
        raise
    except Exception as error:  # A file that is not what its name says fails in as many ways as there are formats.
        fix = mend_unread(error, "write it with numpy.save or numpy.savez")
        raise UserError(f"{path} must be a .npy or .npz file of plain numbers: got {reason_of(error)}; {fix}") from None


def _of_archive(stream: Any, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What `read` does, of a .npz file."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        # Nothing is ever written under such a name; but who wrote it meant something else than numbers.
        astray = [name for name in names if name.startswith("/") or ".." in re.split(r"[/\\]", name)]
        if astray:
            raise ValueError(f"a member that points out of the file, {astray[0]!r}")
        if set(names) != {SAMPLES, LABELS} and len(names) != 1:
            shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
            raise UserError(
                f"{path} must hold one array, or the two called {SAMPLES} and {LABELS}: got {len(names)} ({shown}); "
                f"write it with numpy.savez(FILE, {SAMPLES}=..., {LABELS}=...)"
            )
        arrays = {}
        for name, member in zip(names, members, strict=True):
            with archive.open(member) as inside:
                arrays[name] = _array(inside, member.file_size)
    return (arrays[SAMPLES], arrays[LABELS]) if len(arrays) == 2 else (arrays[names[0]], None)


def _array(stream: Any, size: int, file: Path | None = None) -> np.ndarray:
    """One array as numpy.save writes it, or a map of it.

    Args:
        stream: at its beginning, seekable.
        size: how many bytes there are; what promises more is refused before memory is taken for it.
        file: where the array begins at the stream's beginning and its bytes are the file's own, so that it is mapped.

    Raises:
        Exception: of whatever kind, it is no array of plain numbers.
    """
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, column_major, dtype = HEADERS[version](stream, max_header_size=LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError("Python objects")
    promised = math.prod(shape) * dtype.itemsize
    if promised > size:
        raise ValueError(f"{size} bytes where shape {list(shape)} of {dtype} takes {promised}")
    if file and promised:
        order: Any = "F" if column_major else "C"
        return np.memmap(file, dtype, "r", stream.tell(), shape, order)
    check_fits(len(shape) and shape[0], promised + SINGLE_BYTES * math.prod(shape))
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=LONGEST_HEADER)

"""The user's own files: images to draw patches from, and arrays of samples."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sae_jax.config import DataConfig
from sae_jax.data.base import Data, as_data, checked
from sae_jax.data.patches import from_images
from sae_jax.settings import UserError

SAMPLES, LABELS = "samples", "labels"


def load_images(path: str, config: DataConfig) -> Data:
    """Patches of a .npy file of images [n, height, width]."""
    images = checked(read(path, config.dataset)[0], path, ("n", "height", "width"))
    return from_images(list(images), config, f"patches of {len(images)} images in {Path(path).name}")


def load_array(path: str, config: DataConfig) -> Data:
    """Samples of a .npy or .npz file, [samples, features], with labels [samples] where a .npz holds both by name."""
    samples, labels = read(path, config.dataset)
    return as_data(samples, config, path, labels)


def read(path: str, dataset: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The samples, and the labels if there are any, of a .npy or .npz file; pickled objects are refused, never loaded.

    The samples are the array of a .npy file, the only one of a .npz file, or the one called samples beside labels.

    Args:
        path, dataset: the file, and the setting that names it.

    Raises:
        UserError: there is no such file, it is not what its name says, or a .npz holds other arrays.
    """
    kind = dataset.partition(":")[0]
    if not path:
        raise UserError(f"dataset {kind} needs a file: got {dataset!r}; use {kind}:FILE.npy")
    file = Path(path)
    try:
        if not file.is_file():
            raise UserError(f"dataset {kind} needs a file that exists: got {path}")
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            if set(loaded.files) == {SAMPLES, LABELS}:
                return loaded[SAMPLES], loaded[LABELS]
            if len(loaded.files) != 1:
                raise UserError(
                    f"{path} must hold one array, or the two called {SAMPLES} and {LABELS}: "
                    f"got {len(loaded.files)} ({', '.join(loaded.files)})"
                )
            return loaded[loaded.files[0]], None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} must be a .npy or .npz file of plain numbers, as numpy.save writes: {reason}"
        ) from None

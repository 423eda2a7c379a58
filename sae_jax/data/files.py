"""The user's own files: images to draw patches from, and arrays of samples."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sae_jax.config import DataConfig
from sae_jax.data.base import Data, as_data, checked
from sae_jax.data.patches import from_images
from sae_jax.settings import UserError


def load_images(path: str, config: DataConfig) -> Data:
    """Patches of a .npy file of images [n, height, width]."""
    images = checked(read(path, config.dataset), path, ("n", "height", "width"))
    return from_images(list(images), config, f"patches of {len(images)} images in {Path(path).name}")


def load_array(path: str, config: DataConfig) -> Data:
    """Samples of a .npy or .npz file, [samples, features]."""
    return as_data(read(path, config.dataset), config, path)


def read(path: str, dataset: str) -> np.ndarray:
    """The array of a .npy file, or the only array of a .npz file; pickled objects are refused, never loaded.

    Raises:
        UserError: there is no such file, it is not what its name says, or a .npz holds several arrays.
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
                return loaded
            if len(loaded.files) != 1:
                raise UserError(f"{path} must hold one array: got {len(loaded.files)} ({', '.join(loaded.files)})")
            return loaded[loaded.files[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} must be a .npy or .npz file of plain numbers, as numpy.save writes: {reason}"
        ) from None

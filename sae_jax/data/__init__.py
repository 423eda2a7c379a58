"""Rows, wherever they come from: data sources behind one function, `load`.

config        DataConfig, the settings
samples       Data, and the steps that every source shares; normalise: by the training split's statistics
feed          batches as pure functions of a seed and a step; batches: the permutations that they are drawn by
corruption    noise on the encoder's inputs
patches, digits, tfds_images, files   one file a source
"""

from __future__ import annotations

import os

from sae_jax.data import digits, files, patches, tfds_images
from sae_jax.data.config import DataConfig
from sae_jax.data.samples import Data, as_data
from sae_jax.settings import UserError, unknown

SOURCES = {
    "patches": patches.load,
    "digits": digits.load,
    "tfds": tfds_images.load,
    "images": files.load_images,
    "array": files.load_array,
}


def load(config: DataConfig) -> Data:
    """Load, normalise and split the data set that `config.dataset` names.

    Args:
        config: dataset is a source's name, followed by a colon and a name or path where the source takes one.

    Raises:
        UserError: the source is unknown, or what it reads is missing, empty, not numeric, not finite or too small.
    """
    kind, _, argument = config.dataset.partition(":")
    if kind not in SOURCES and os.path.isfile(config.dataset):
        raise UserError(f"a file must follow its kind: got {config.dataset}; use array:{config.dataset}")
    if kind not in SOURCES:
        raise unknown("dataset", kind, SOURCES)
    return SOURCES[kind](argument, config)


__all__ = ["SOURCES", "Data", "DataConfig", "as_data", "load"]

"""The 8x8 handwritten digits that ship inside scikit-learn."""

from __future__ import annotations

import numpy as np

from sae_jax.config import DataConfig
from sae_jax.data.base import Data, finish
from sae_jax.settings import UserError


def load(argument: str, config: DataConfig) -> Data:
    """1,797 digits in [0, 1], split at random.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
    """
    from sklearn.datasets import load_digits

    if argument:
        raise UserError(f"dataset digits takes nothing after a colon: got {config.dataset}; use digits")
    pixels = load_digits().data / 16.0
    order = np.random.default_rng(config.data_seed).permutation(len(pixels))
    held = max(1, round(config.heldout * len(pixels)))
    return finish(
        pixels[order[held:]],
        pixels[order[:held]],
        config,
        "scikit-learn's handwritten digits",
        normalize="none",
        image_shape=(8, 8),
    )

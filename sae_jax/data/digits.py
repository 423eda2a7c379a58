"""The 8x8 handwritten digits that ship inside scikit-learn."""

from __future__ import annotations

from sae_jax.data.config import DataConfig
from sae_jax.data.samples import Data, finish, split
from sae_jax.settings import UserError


def load(argument: str, config: DataConfig) -> Data:
    """1,797 digits in [0, 1], split at random.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
    """
    from sklearn.datasets import load_digits

    if argument:
        raise UserError(f"dataset digits takes nothing after a colon: got {config.dataset}; use digits")
    digits = load_digits()
    return finish(
        *split(digits.data / 16.0, config),
        config,
        "scikit-learn's handwritten digits",
        normalize="none",
        image_shape=(8, 8),
        labels=split(digits.target, config),
    )

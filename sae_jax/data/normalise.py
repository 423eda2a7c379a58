"""Normalisation of both splits by the training split's statistics."""

from __future__ import annotations

import numpy as np

from sae_jax.settings import UserError

CLIP_STD = 3.0


def normalise(train: np.ndarray, heldout: np.ndarray, rule: str, subtract_mean: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalise both splits by the training split's statistics.

        ufldl   x <- clip(x - mean, -3 std, 3 std) / (3 std) * 0.4 + 0.5, so that a sigmoid can reach it: [.1, .9]
        unit    x <- (x - mean) / std
        none    as it is

    Args:
        subtract_mean: patch (every sample's mean over its inputs) or global (one mean over all samples and inputs).

    Raises:
        UserError: nothing is left after the mean is subtracted.

    Source: Ng, UFLDL exercise "Sparse Autoencoder", normalizeData (which subtracts each patch's mean).
    """
    if rule == "none":
        return train.astype(np.float32), heldout.astype(np.float32)
    centre = train.mean(dtype=np.float64)
    centred = [
        split - (split.mean(axis=1, keepdims=True, dtype=np.float64) if subtract_mean == "patch" else centre)
        for split in (train, heldout)
    ]
    std = centred[0].std()
    if std < 1e-12:
        raise UserError(
            f"samples must differ from their mean to be normalised: got standard deviation {std:.3g}; "
            "use samples that vary, or normalize none"
        )
    if rule == "ufldl":
        limit = CLIP_STD * std
        centred = [np.clip(split, -limit, limit) / limit * 0.4 + 0.5 for split in centred]
    else:
        centred = [split / std for split in centred]
    return centred[0].astype(np.float32), centred[1].astype(np.float32)

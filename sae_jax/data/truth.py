"""What is known of samples that were made: the features that they are sums of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sae_jax.settings import UserError, check_type


class Truth(NamedTuple):
    """The features that samples are sums of: x_i = bias + sum_j m_ij d_j.

    Attributes:
        directions: d, unit rows, [features, d_in].
        firing: which features fire on which held-out sample, m_ij > 0, [heldout, features].
        magnitudes: m of the held-out samples, [heldout, features].
        parents: the feature without which each feature does not fire, [features]; -1 where there is none, and None
            where no feature has one.
    """

    directions: Float[np.ndarray, "features d_in"]
    firing: Bool[np.ndarray, "heldout features"]
    magnitudes: Float[np.ndarray, "heldout features"]
    parents: Int[np.ndarray, " features"] | None = None


def check_truth(truth: Any, heldout: Float[np.ndarray, "heldout d_in"]) -> None:
    """Refuse a truth whose arrays do not fit together, or not the held-out samples.

    Raises:
        UserError: they do not, or it is none.
    """
    check_type("truth", truth, Truth, "a Truth", "use sae_jax.Truth(directions, firing, magnitudes)")
    features = len(truth.directions)
    expected = {
        "directions": (features, heldout.shape[1]),
        "firing": (len(heldout), features),
        "magnitudes": (len(heldout), features),
        "parents": (features,),
    }
    for name, shape in expected.items():
        values = getattr(truth, name)
        if values is not None and np.shape(values) != shape:
            raise UserError(
                f"{name} of the truth must have shape {list(shape)}, as the held-out samples say: got "
                f"{list(np.shape(values))}; take both of one set"
            )

"""Settings of the classic family, and which of them do not go together."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from flax import struct

from sae_jax.models import base
from sae_jax.models.activations import ACTIVATIONS, OUTPUTS
from sae_jax.models.kl import EPSILON
from sae_jax.models.terms import RECONSTRUCTION_LOSSES
from sae_jax.settings import (
    CLOSED_UNIT,
    HALF_OPEN_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    TRUE_OR_FALSE,
    Range,
    Unread,
    UserError,
    one_of,
    static,
    swept,
)


@struct.dataclass
class Settings(base.Settings):
    """Settings of the classic family."""

    UNREAD: ClassVar[Unread] = {
        ("beta", 0): ("rho", "beta_warmup", "ema_decay", "ema_start", "estimator"),
        ("estimator", "batch"): ("ema_decay", "ema_start"),
        ("k", 0): ("k_start", "k_warmup", "k_factor"),
        ("k_warmup", 0): ("k_start",),
        ("average_sparsity", 0): ("average_target",),
    }
    rho: Any = swept(0.02, Range(EPSILON, 1 - EPSILON), "target mean activation of a hidden unit")
    beta: Any = swept(1.0, NON_NEGATIVE, "weight of the KL penalty, beta * sum_j KL(rho || rho_hat_j)")
    beta_warmup: Any = swept(0.2, CLOSED_UNIT, "fraction of the steps over which beta rises linearly from 0")
    ema_decay: Any = swept(0.5, HALF_OPEN_UNIT, "decay per step of the running mean activation (estimator ema)")
    weight_decay: Any = swept(7e-5, NON_NEGATIVE, "weight decay wd inside the loss, (wd/2) * ||W||^2, biases exempt")
    l1: Any = swept(0.0, NON_NEGATIVE, "weight of the codes' L1 norm, summed over units", off=0.0)
    contractive: Any = swept(0.0, NON_NEGATIVE, "weight of the squared norm of the encoder's Jacobian", off=0.0)
    partial_sparsity: Any = swept(0.0, NON_NEGATIVE, "weight of the mean of h (1 - h), of codes in [0, 1]", off=0.0)
    average_sparsity: Any = swept(0.0, NON_NEGATIVE, "weight of mean activations' squared excess", off=0.0)
    average_target: Any = swept(0.15, CLOSED_UNIT, "mean activation above which it counts")
    k: Any = swept(
        0, NON_NEGATIVE, "units kept on each sample, those of largest pre-activation; 0 is all", "unit", off=0.0
    )
    k_start: Any = swept(0, NON_NEGATIVE, "units kept at the start, from where k falls linearly; 0 is all", "unit")
    k_warmup: Any = swept(0.5, CLOSED_UNIT, "fraction of the steps over which k falls")
    k_factor: Any = swept(1.0, POSITIVE, "units that a trained lane keeps on each sample, over k", off=1.0)
    lifetime: Any = swept(
        0.0, CLOSED_UNIT, "share of a batch on which a unit is kept, that of its largest codes; 0 is all", off=0.0
    )
    start_std: Any = swept(
        0.0, NON_NEGATIVE, "standard deviation of normal weights at the start; 0 is uniform ones of UFLDL", off=0.0
    )
    activation: str = static("sigmoid", one_of(ACTIVATIONS), "activation of the codes")
    output: str = static("sigmoid", one_of(OUTPUTS), "activation of the reconstruction")
    tied: bool = static(False, TRUE_OR_FALSE, "the decoder weight is the encoder's")
    reconstruction_loss: str = static("squared_error", one_of(RECONSTRUCTION_LOSSES), "reconstruction loss")
    estimator: str = static(
        "ema", one_of(("ema", "batch")), "rho_hat in the penalty: the running mean, or this batch's own mean"
    )
    ema_start: str = static(
        "rho", one_of(("rho", "zero")), "the running mean starts at rho, or at 0 and is corrected for it"
    )
    products: str = static(
        "float32", one_of(("float32", "bfloat16")), "factors of matrix products, which are summed in float32"
    )


def check(s: Settings) -> None:
    """Refuse settings that do not go together.

    Raises:
        UserError: the Bernoulli loss without probabilities, a k or its start above the number of units, or a start
            below the k that it falls to.
    """
    if s.reconstruction_loss == "bernoulli" and s.output != "sigmoid":
        raise UserError(f"reconstruction_loss bernoulli needs probabilities: got output {s.output}; use output sigmoid")
    for name, value in (("k", s.k), ("k_start", s.k_start)):
        highest = 0 if value is None else float(np.max(value))
        if highest > s.d_hidden:
            raise UserError(
                f"{name} must be at most d_hidden: got {highest:g} of {s.d_hidden}; use a smaller {name}, or 0 for all"
            )
    for k, start in np.broadcast(0 if s.k is None else s.k, s.k_start):
        if 0 < start < k:
            raise UserError(
                f"k_start must be at least k, to which it falls: got {start:g} and k {k:g}; use a larger k_start, or 0 "
                "for all"
            )


def check_data(s: Settings, low: float, high: float) -> None:
    """Refuse data that a sigmoid output cannot reach.

    Raises:
        UserError: there are values outside [0, 1].
    """
    if s.output == "sigmoid" and (low < 0 or high > 1):
        raise UserError(
            f"output sigmoid needs data in [0, 1]: got values from {low:.3g} to {high:.3g}; "
            "use output linear, or normalize ufldl"
        )

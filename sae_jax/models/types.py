"""The nouns of the codebase: array aliases, the parameter pytree and everything that a sweep may vary."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias, TypeVar

import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from sae_jax.settings import (
    CLOSED_UNIT,
    HALF_OPEN_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    setting,
)

# encoder_weight [d_hidden, d_in], encoder_bias [d_hidden], decoder_bias [d_in] and, unless the weights are tied,
# decoder_weight [d_hidden, d_in]. A flat dict, so that it is at once a pytree and a safetensors file.
Params: TypeAlias = dict[str, Array]
Key: TypeAlias = PRNGKeyArray
Scalar: TypeAlias = Float[Array, ""] | float
Batch: TypeAlias = Float[Array | np.ndarray, "batch d_in"]
Codes: TypeAlias = Float[Array | np.ndarray, "batch d_hidden"]
UnitMeans: TypeAlias = Float[Array | np.ndarray, " d_hidden"]
Tree = TypeVar("Tree")


# Mean activations nearer to 0 or 1 than this are beyond float32: there the KL divergence goes on along its tangent.
EPSILON = 1e-6


@struct.dataclass
class Hyperparameters:
    """Everything numeric that a sweep may vary inside one compiled program: each leaf is a scalar, or traced.

    Those in OPTIONAL may be None, which leaves what they stand for out of the program altogether.
    """

    rho: Any = setting(0.05, Range(EPSILON, 1 - EPSILON), "target mean activation of a hidden unit")
    beta: Any = setting(1.0, NON_NEGATIVE, "weight of the KL penalty, beta * sum_j KL(rho || rho_hat_j)")
    weight_decay: Any = setting(1e-3, NON_NEGATIVE, "weight decay wd inside the loss, (wd/2) * ||W||^2, biases exempt")
    l1: Any = setting(0.0, NON_NEGATIVE, "weight of the codes' L1 norm, summed over units")
    contractive: Any = setting(0.0, NON_NEGATIVE, "weight of the squared norm of the encoder's Jacobian")
    k: Any = setting(0, NON_NEGATIVE, "units kept on each sample, those of largest pre-activation; 0 is all", "unit")
    k_warmup: Any = setting(0.5, CLOSED_UNIT, "fraction of the steps over which k falls linearly from all units")
    noise: Any = setting(0.0, NON_NEGATIVE, "level of the corruption: standard deviation, or probability up to 1")
    ema_decay: Any = setting(0.9, HALF_OPEN_UNIT, "decay per step of the running mean activation (estimator ema)")
    learning_rate: Any = setting(5e-3, POSITIVE, "learning rate at the end of the warm-up")
    warmup: Any = setting(0.05, CLOSED_UNIT, "fraction of the steps over which the learning rate rises linearly")
    final_learning_rate: Any = setting(0.0, CLOSED_UNIT, "cosine decay ends at this fraction of the learning rate")
    beta_warmup: Any = setting(0.2, CLOSED_UNIT, "fraction of the steps over which beta rises linearly from 0")
    clip_norm: Any = setting(0.0, NON_NEGATIVE, "gradients are scaled down to this global norm; 0 is off")
    momentum: Any = setting(0.9, HALF_OPEN_UNIT, "momentum of optimizer sgd")


# Switched off by 0: where a sweep has no other value of them, their arithmetic is saved.
OPTIONAL = ("l1", "contractive", "k")


def without_unused(hyper: Hyperparameters) -> Hyperparameters:
    """The same with None for what is OPTIONAL and 0 throughout, so that a program is compiled without it."""
    unused = {name: None for name in OPTIONAL if not np.any(getattr(hyper, name))}
    return dataclasses.replace(hyper, **unused)

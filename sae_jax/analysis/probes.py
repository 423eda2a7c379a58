"""Linear probes: multinomial logistic regression on codes, by L-BFGS."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sae_jax.models.base import Codes, Params, Scalar
from sae_jax.training.lbfgs import minimize

DECAY, STEPS = 1e-4, 200


def probe_logits(probe: Params, codes: Codes) -> Float[Array, "batch classes"]:
    """Logits of the classes: codes W + b, [batch, classes]."""
    return jnp.asarray(codes) @ probe["weight"] + probe["bias"][None, :]


def probe_loss(
    probe: Params, codes: Codes, labels: Int[Array | np.ndarray, " batch"], decay: Scalar | Array
) -> Float[Array, ""]:
    """Mean cross-entropy in nats and (decay / 2) ||W||^2, the bias exempt.

    Args:
        probe: weight [d_hidden, classes] and bias [classes].
        codes: [batch, d_hidden].
        labels: class numbers from 0, [batch].
        decay: weight of the squared norm.

    Source: Ng, UFLDL, "Softmax regression".
    """
    chances = jax.nn.log_softmax(probe_logits(probe, codes))
    chosen = jnp.take_along_axis(chances, labels[:, None], axis=1)
    return -jnp.mean(chosen) + 0.5 * decay * jnp.sum(jnp.square(probe["weight"]))


def fit_probe(
    codes: Codes,
    labels: Int[Array | np.ndarray, " batch"],
    classes: int,
    decay: float = DECAY,
    steps: int = STEPS,
) -> Params:
    """The probe of least loss, from zero weights.

    Args:
        codes, labels, decay: as in `probe_loss`.
        classes: number of classes.
        steps: L-BFGS iterations at most.

    Returns:
        weight [d_hidden, classes] and bias [classes].
    """
    start = {"weight": jnp.zeros((codes.shape[1], classes), jnp.float32), "bias": jnp.zeros(classes, jnp.float32)}
    return minimize(lambda probe: probe_loss(probe, codes, labels, decay), start, steps)


def accuracy(logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]) -> Float[Array, ""]:
    """Share of samples whose largest logit is their own class's."""
    return jnp.mean(jnp.argmax(logits, axis=1) == labels, dtype=jnp.float32)

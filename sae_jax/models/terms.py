"""Terms of a loss, each a pure function: reconstruction, and penalties on codes and weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sae_jax.models.activations import ACTIVATIONS, OUTPUTS
from sae_jax.models.base import Batch, Codes, Params

# Reconstruction losses by name, with the units of their values.
RECONSTRUCTION_LOSSES = {
    "squared_error": "squared input units per sample",
    "half_squared_error": "squared input units per sample",
    "mean_squared_error": "squared input units",
    "bernoulli": "nat",
}


def reconstruction_loss(logits: Float[Array, "batch d_in"], target: Batch, kind: str, output: str) -> Float[Array, ""]:
    """Reconstruction loss of a batch, by name, with x_hat = tau(logits).

        squared_error        mean over the batch of sum_k (x_k - x_hat_k)^2
        half_squared_error   half of it (Ng, CS294A notes, section 2)
        mean_squared_error   mean over the batch and the inputs
        bernoulli            mean over the batch of -sum_k x_k log x_hat_k + (1 - x_k) log(1 - x_hat_k), in nats

    Args:
        logits: reconstruction before the output activation, [batch, d_in].
        target: x, [batch, d_in].
        kind: one of RECONSTRUCTION_LOSSES.
        output: name of the output activation tau.
    """
    if kind == "bernoulli":
        # From the logits: 1 - sigmoid(20) is already 0 in float32.
        return jnp.mean(jnp.sum(jax.nn.softplus(logits) - target * logits, axis=1))
    squares = jnp.square(OUTPUTS[output](logits) - target)
    if kind == "mean_squared_error":
        return jnp.mean(squares)
    scale = 0.5 if kind == "half_squared_error" else 1.0
    return scale * jnp.mean(jnp.sum(squares, axis=1))


def l1_penalty(codes: Codes) -> Float[Array, ""]:
    """Mean over the batch of the codes' L1 norm, mean_i sum_j |h_ij|.

    Source: Bricken et al. 2023, "Towards monosemanticity", appendix "Advice for training sparse autoencoders".
    """
    return jnp.mean(jnp.sum(jnp.abs(codes), axis=1))


def contractive_penalty(
    params: Params, codes: Codes, activation: str, left_out: Bool[Array, "batch d_hidden"] | None = None
) -> Float[Array, ""]:
    """Mean over the batch of the squared Frobenius norm of the encoder's Jacobian, in closed form.

        mean_i ||dh_i / dx||_F^2 = sum_j (mean_i sigma'(z_ij)^2) (sum_k We_jk^2)

    Args:
        params: encoder_weight is read.
        codes: codes of the batch, [batch, d_hidden]; sigma' is a function of them.
        activation: name of the codes' activation.
        left_out: codes that are 0 whatever the sample, since a choice of the largest left them out; None is none.

    Source: Rifai et al. 2011, "Contractive auto-encoders", section 3.
    """
    slopes = ACTIVATIONS[activation].slope(codes)
    if left_out is not None:
        slopes = jnp.where(left_out, 0, slopes)
    slopes = jnp.mean(jnp.square(slopes), axis=0)
    return jnp.sum(slopes * jnp.sum(jnp.square(params["encoder_weight"]), axis=1))


def weight_decay(params: Params) -> Float[Array, ""]:
    """Half the squared norm of the weights, (1/2) sum ||W||^2, biases exempt; tied weights count once.

    Source: Ng, CS294A notes, section 2.
    """
    squares = [jnp.sum(jnp.square(params[name])) for name in ("encoder_weight", "decoder_weight") if name in params]
    return 0.5 * jnp.sum(jnp.stack(squares))

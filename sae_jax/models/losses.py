"""The training objective: reconstruction and penalties."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.activations import OUTPUTS, activity
from sae_jax.models.autoencoder import codes_by_unit, logits_of_units
from sae_jax.models.penalties import contractive_penalty, kl_penalty, l1_penalty, weight_decay
from sae_jax.models.types import Batch, Hyperparameters, Params, Scalar, UnitMeans
from sae_jax.training.config import Config


class Aux(NamedTuple):
    """What the objective computes on the way: two terms of the loss and the batch's mean activity [d_hidden]."""

    reconstruction: Array
    penalty: Array
    batch_mean: Array


def reconstruction_loss(logits: Float[Array, "batch d_in"], x: Batch, config: Config) -> Float[Array, ""]:
    """Reconstruction loss of a batch, by `config.reconstruction_loss`, with x_hat = tau(logits).

        squared_error        mean over the batch of sum_k (x_k - x_hat_k)^2
        half_squared_error   half of it (Ng, CS294A notes, section 2)
        mean_squared_error   mean over the batch and the inputs
        bernoulli            mean over the batch of -sum_k x_k log x_hat_k + (1 - x_k) log(1 - x_hat_k), in nats

    Args:
        logits: reconstruction before the output activation, [batch, d_in].
        x: targets, [batch, d_in].
    """
    if config.reconstruction_loss == "bernoulli":
        # From the logits: 1 - sigmoid(20) is already 0 in float32.
        return jnp.mean(jnp.sum(jax.nn.softplus(logits) - x * logits, axis=1))
    squares = jnp.square(OUTPUTS[config.output](logits) - x)
    if config.reconstruction_loss == "mean_squared_error":
        return jnp.mean(squares)
    scale = 0.5 if config.reconstruction_loss == "half_squared_error" else 1.0
    return scale * jnp.mean(jnp.sum(squares, axis=1))


def objective(
    params: Params,
    x: Batch,
    config: Config,
    hyper: Hyperparameters,
    beta: Scalar,
    running_mean: UnitMeans | None = None,
    axis_name: str | None = None,
    corrupted: Batch | None = None,
    k: Scalar | Array | None = None,
) -> tuple[Float[Array, ""], Aux]:
    """The training loss: the reconstruction loss and every penalty with its own coefficient.

        loss = R(x, x_hat) + beta * sum_j KL(rho || rho_hat_j) + l1 * mean_i ||h_i||_1
             + contractive * mean_i ||dh_i/dx||_F^2 + (weight_decay / 2) ||W||^2

    Args:
        params: parameter pytree.
        x: batch, [batch, d_in]; this device's share of it under data parallelism.
        config: static settings.
        hyper: rho and the coefficients are read; those that are None leave their penalty out.
        beta: the KL penalty's weight at this step (the warm-up applied).
        running_mean: rho_hat, [d_hidden]; None takes the batch's own mean activity (estimator batch).
        axis_name: named axis over which the batch is split.
        corrupted: what the encoder sees, [batch, d_in]; None is x itself. The target is always x.
        k: units kept on a sample at this step (the schedule applied); 0 and None keep all.

    Returns:
        (loss, Aux). Under data parallelism loss and reconstruction are this device's; batch_mean is the global one.
    """
    by_unit = codes_by_unit(params, x if corrupted is None else corrupted, config, k)
    codes = by_unit.T
    scaled = activity(codes, config.activation, k is not None)
    # No gradient passes a collective: differentiating through pmean means different things under different transforms.
    batch_mean = jax.lax.stop_gradient(jnp.mean(scaled, axis=0))
    if axis_name is not None:
        batch_mean = jax.lax.pmean(batch_mean, axis_name)
    mean_activation = batch_mean if running_mean is None else running_mean
    reconstruction = reconstruction_loss(logits_of_units(params, by_unit, config), x, config)
    penalty = kl_penalty(scaled, mean_activation, hyper.rho, beta)
    loss = reconstruction + penalty + hyper.weight_decay * weight_decay(params)
    if hyper.l1 is not None:
        loss = loss + hyper.l1 * l1_penalty(codes)
    if hyper.contractive is not None:
        loss = loss + hyper.contractive * contractive_penalty(params, codes, config.activation, k is not None)
    return loss, Aux(reconstruction, penalty, batch_mean)


def heldout_objective(params: Params, x: Batch, config: Config, hyper: Hyperparameters) -> Float[Array, ""]:
    """The objective on clean held-out data, beta in full, rho_hat measured there: what early stopping watches."""
    return objective(params, x, config, hyper, hyper.beta, k=hyper.k)[0]

"""The classic sparse autoencoder and its family.

    z = x We^T + be,  h = sigma(z),  x_hat = tau(h Wd + bd)
    loss = R(x, x_hat) + beta sum_j KL(rho || rho_hat_j) + (weight_decay / 2) ||W||^2
           + l1 mean_i ||h_i||_1 + contractive mean_i ||dh_i / dx||_F^2
           + partial_sparsity mean_ij h_ij (1 - h_ij) + average_sparsity mean_j max(0, mean_i h_ij - target)^2

with rho_hat a running average (`SparsityState`) or the batch's own mean; with `k` only the k largest pre-activations of
a sample are kept; in training with `lifetime` only a share of a unit's pre-activations on a batch, the largest; with
`tied` Wd is We.

Source: Ng, CS294A notes, "Sparse autoencoder"; Makhzani and Frey 2013 (k), 2015 (lifetime); Rifai et al. 2011
(contractive); Subramanian et al. 2018, "SPINE" (the last two).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from sae_jax.models import memory
from sae_jax.models.base import Evaluated, Key, Measure, Model, Params, Scalar
from sae_jax.models.classic_codes import active, active_rule, activity, decode, encode, logits, step_codes
from sae_jax.models.classic_loss import loss, terms
from sae_jax.models.classic_settings import Settings, check, check_data
from sae_jax.models.linear import TWO_LAYERS, normal_weights, uniform_weights
from sae_jax.models.memory import SparsityState
from sae_jax.models.terms import RECONSTRUCTION_LOSSES, reconstruction_loss


def init(key: Key, d_in: int, s: Settings) -> Params:
    """Uniform weights, or normal ones of `start_std`, and zero biases; no decoder_weight where the weights are tied."""
    uniform = uniform_weights(key, d_in, s.d_hidden, s.tied)
    if s.start_std is None:
        return uniform
    normal = normal_weights(key, d_in, s.d_hidden, s.start_std, s.tied)
    return {name: jnp.where(s.start_std > 0, normal[name], uniform[name]) for name in uniform}


def start_memory(s: Settings) -> SparsityState:
    """The running mean activation before the first batch."""
    return memory.start(s.rho, s.d_hidden, s.ema_start)


def update_memory(state: SparsityState, batch_mean: Array, s: Settings) -> SparsityState:
    """rho_hat <- lambda rho_hat + (1 - lambda) mean_i h_i."""
    return memory.update(state, batch_mean, s.ema_decay)


def finish(params: Params, state: SparsityState, s: Settings) -> Params:
    """Parameters with the decoder's rows by their own name, also where the weights are tied."""
    return {"decoder_weight": params["encoder_weight"], **params}


def measures(s: Settings) -> dict[str, Measure]:
    """The training loss's own reconstruction term on held-out data, and mean and largest activity of every unit."""

    def reconstruction(lane: Evaluated) -> Array:
        rebuilt = logits(lane.params, lane.codes.T, lane.settings)
        return reconstruction_loss(rebuilt, lane.x, s.reconstruction_loss, s.output)

    scale = "on held-out data (tanh codes as (h + 1) / 2)"
    units, label = RECONSTRUCTION_LOSSES[s.reconstruction_loss], f"reconstruction loss ({s.reconstruction_loss})"
    return {
        "reconstruction": Measure(reconstruction, f"{label} on held-out data", units, lower_is_better=True),
        "mean_activation": Measure(
            lambda lane: jnp.mean(activity(lane.codes, lane.settings), axis=0), f"mean activity {scale}", dims=("unit",)
        ),
        "max_activation": Measure(
            lambda lane: jnp.max(activity(lane.codes, lane.settings), axis=0),
            f"largest activity {scale}",
            dims=("unit",),
        ),
    }


def longest_ramp(s: Settings) -> Scalar | Array:
    """Until when the loss changes by schedules: the warm-ups of beta and, where codes are chosen, of k."""
    of_penalty = jnp.where(s.beta > 0, s.beta_warmup, 0)
    return of_penalty if s.k is None else jnp.maximum(of_penalty, jnp.where(s.k > 0, s.k_warmup, 0))


CLASSIC = Model(
    name="classic",
    Settings=Settings,
    # A finished lane holds tied weights twice.
    parameters=lambda s: TWO_LAYERS,
    terms=terms,
    init=init,
    encode=encode,
    decode=decode,
    active=active,
    active_rule=active_rule,
    loss=loss,
    step_codes=step_codes,
    memory=start_memory,
    update=update_memory,
    finish=finish,
    measures=measures,
    ramp=longest_ramp,
    # L-BFGS learns the curvature of one fixed loss, which a running mean or rounded products would take away.
    exact=lambda s: {"estimator": "batch", "products": "float32"},
    check=check,
    check_data=check_data,
)

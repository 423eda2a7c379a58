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
from jaxtyping import Array, Float

from sae_jax.models import memory, spine
from sae_jax.models.activations import ACTIVATIONS, OUTPUTS
from sae_jax.models.base import Batch, Codes, Evaluated, Key, Measure, Model, Parameter, Params, Scalar, Step, Term
from sae_jax.models.classic_settings import Settings, check, check_data
from sae_jax.models.kl import kl_penalty
from sae_jax.models.linear import TWO_LAYERS, decoder_product, encoder_product, normal_weights, uniform_weights
from sae_jax.models.memory import SparsityState
from sae_jax.models.selection import dropped, largest, largest_of_units, samples_kept, units_at
from sae_jax.models.terms import (
    RECONSTRUCTION_LOSSES,
    contractive_penalty,
    l1_penalty,
    reconstruction_loss,
    weight_decay,
)


def parameters(s: Settings) -> dict[str, Parameter]:
    """What a finished lane holds; tied weights are stored twice."""
    return TWO_LAYERS


def terms(s: Settings) -> dict[str, Term]:
    """The terms of `loss`, in its order; those that are off are not there."""
    units = RECONSTRUCTION_LOSSES[s.reconstruction_loss]
    everything = {
        "reconstruction": Term("reconstruction term", units),
        "kl": Term("beta * sum_j KL(rho || rho_hat_j)", "nat"),
        "weight_decay": Term("(weight_decay / 2) * ||W||^2", units),
        "l1": Term("l1 * mean ||h||_1", units),
        "contractive": Term("contractive * mean ||dh / dx||_F^2", units),
        "partial_sparsity": Term("partial_sparsity * mean h (1 - h)", units),
        "average_sparsity": Term("average_sparsity * mean max(0, rho_hat - target)^2", units),
    }
    return {name: term for name, term in everything.items() if getattr(s, name, 0) is not None}


def init(key: Key, d_in: int, s: Settings) -> Params:
    """Uniform weights, or normal ones of `start_std`, and zero biases; no decoder_weight where the weights are tied."""
    uniform = uniform_weights(key, d_in, s.d_hidden, s.tied)
    if s.start_std is None:
        return uniform
    normal = normal_weights(key, d_in, s.d_hidden, s.start_std, s.tied)
    return {name: jnp.where(s.start_std > 0, normal[name], uniform[name]) for name in uniform}


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch: h = sigma(x We^T + be), and 0 but for the k largest pre-activations of a sample.

    Args:
        params: encoder_weight and encoder_bias are read.
        x: samples, [batch, d_in].
        s: activation, products and k, where 0 and None keep all, are read; k_factor k are kept.

    Returns:
        Codes, [batch, d_hidden].

    Encoding and decoding state their own gradients, so they are differentiated in reverse (`jax.grad`, `jax.vjp`,
    `jax.jacrev`), not forward.

    Source: Makhzani and Frey 2013, "k-sparse autoencoders", section 2 (k_factor is its alpha).
    """
    by_unit, pre_activations = _all_by_unit(params, x, s)
    if s.k is not None:
        by_unit = _among_largest(by_unit, pre_activations, units_encoded(s))
    return by_unit.T


def units_encoded(s: Settings) -> Scalar | Array:
    """How many units `encode` keeps on each sample: all, k, or round(k_factor k)."""
    if s.k is None:
        return s.d_hidden
    k = s.k if s.k_factor is None else jnp.maximum(1, jnp.round(s.k * s.k_factor))
    return jnp.where(s.k > 0, jnp.minimum(k, s.d_hidden), s.d_hidden)


def _all_by_unit(params: Params, x: Batch, s: Settings) -> tuple[Array, Array]:
    """Codes before any choice and what they are chosen by, each [d_hidden, batch]."""
    pre_activations = encoder_product(params["encoder_weight"], x, s.products) + params["encoder_bias"][:, None]
    return ACTIVATIONS[s.activation].apply(pre_activations), pre_activations


def _among_largest(by_unit: Array, pre_activations: Array, k: Scalar | Array) -> Array:
    return jnp.where(largest(pre_activations.T, k).T, by_unit, 0)


def _trained_by_unit(params: Params, step: Step, s: Settings) -> Float[Array, "d_hidden batch"]:
    """`step_codes`, unit by unit."""
    by_unit, pre_activations = _all_by_unit(params, step.x, s)
    if s.k is not None:
        by_unit = _among_largest(by_unit, pre_activations, units_at(step, s))
    if s.lifetime is not None:
        by_unit = jnp.where(largest_of_units(pre_activations, samples_kept(step, s), step.across), by_unit, 0)
    return by_unit


def step_codes(params: Params, step: Step, s: Settings) -> Float[Array, "batch d_hidden"]:
    """Codes of a batch as a step of the training has them, with its k and the shares of `lifetime`."""
    return _trained_by_unit(params, step, s).T


def _chooses(s: Settings) -> bool:
    """Whether some codes are left out, and are 0."""
    return s.k is not None or s.lifetime is not None


def decode(params: Params, codes: Codes, s: Settings) -> Float[Array, "batch d_in"]:
    """Reconstruction from codes: x_hat = tau(h Wd + bd), [batch, d_in]."""
    return OUTPUTS[s.output](_logits(params, jnp.asarray(codes).T, s))


def _logits(params: Params, by_unit: Float[Array, "d_hidden batch"], s: Settings) -> Float[Array, "batch d_in"]:
    rows = params.get("decoder_weight", params["encoder_weight"])
    return decoder_product(by_unit, rows, s.products) + params["decoder_bias"][None, :]


def activity(codes: Codes, s: Settings) -> Codes:
    """Codes on the penalty's scale, [0, 1] where they are bounded.

    0 where only the largest are kept and this is none of them, which is not what 0 stands for on every scale.
    """
    values = ACTIVATIONS[s.activation].activity(codes)
    return jnp.where(dropped(codes), 0, values) if _chooses(s) else values


def active(codes: Codes, s: Settings) -> Array:
    """Which codes count as active, by `active_rule`; none that a choice of the largest left out."""
    exceeds = ACTIVATIONS[s.activation].is_active(codes)
    return exceeds & ~dropped(codes) if _chooses(s) else exceeds


def active_rule(s: Settings) -> str:
    """What `active` is, in words."""
    return f"{ACTIVATIONS[s.activation].active_rule} for {s.activation} codes"


def loss(params: Params, state: SparsityState | None, step: Step, s: Settings) -> tuple[dict[str, Array], Array]:
    """The terms of the training loss, and the batch's mean activity.

    Args:
        params: as `init` returns them.
        state: the running mean; None takes the batch's own mean activity, as estimator batch does.
        step: batch, schedules, and statistics of the whole batch.
        s: settings; those that are None leave their term out.

    Returns:
        ({name: value} of the terms, this device's; mean activity of each unit over the whole batch, [d_hidden]).
    """
    by_unit = _trained_by_unit(params, step, s)
    codes = by_unit.T
    scaled = activity(codes, s)
    batch_mean = step.across.mean(jnp.mean(scaled, axis=0))
    mean_activation = batch_mean
    if s.estimator == "ema" and state is not None:
        mean_activation = memory.estimate(state, s.rho)
    values = {
        "reconstruction": reconstruction_loss(
            _logits(params, by_unit, s), step.target, s.reconstruction_loss, s.output
        ),
        "kl": kl_penalty(scaled, mean_activation, s.rho, s.beta * step.ramp(s.beta_warmup)),
        "weight_decay": s.weight_decay * weight_decay(params),
    }
    if s.l1 is not None:
        values["l1"] = s.l1 * l1_penalty(codes)
    if s.contractive is not None:
        values["contractive"] = s.contractive * contractive_penalty(params, codes, s.activation, _chooses(s))
    if s.partial_sparsity is not None:
        values["partial_sparsity"] = s.partial_sparsity * spine.partial_sparsity(scaled)
    if s.average_sparsity is not None:
        values["average_sparsity"] = s.average_sparsity * spine.average_sparsity(scaled, batch_mean, s.average_target)
    return values, batch_mean


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
        logits = _logits(lane.params, lane.codes.T, lane.settings)
        return reconstruction_loss(logits, lane.x, s.reconstruction_loss, s.output)

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
    parameters=parameters,
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

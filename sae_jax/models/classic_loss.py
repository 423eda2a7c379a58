"""The loss of the classic family: its terms, of which those that are off are left out."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from sae_jax.models import memory, spine
from sae_jax.models.base import Params, Step, Term
from sae_jax.models.classic_codes import activity, left_out, logits, trained_by_unit
from sae_jax.models.classic_settings import Settings
from sae_jax.models.kl import kl_penalty
from sae_jax.models.memory import SparsityState
from sae_jax.models.terms import (
    RECONSTRUCTION_LOSSES,
    contractive_penalty,
    l1_penalty,
    reconstruction_loss,
    weight_decay,
)


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
        "average_sparsity": Term("average_sparsity * mean_j max(0, mean_i h_ij - target)^2", units),
    }
    return {name: term for name, term in everything.items() if getattr(s, name, 0) is not None}


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
    by_unit = trained_by_unit(params, step, s)
    codes = by_unit.T
    scaled = activity(codes, s)
    batch_mean = step.across.mean(jnp.mean(scaled, axis=0))
    mean_activation = batch_mean
    if s.estimator == "ema" and state is not None:
        mean_activation = memory.estimate(state, s.rho)
    values = {
        "reconstruction": reconstruction_loss(logits(params, by_unit, s), step.target, s.reconstruction_loss, s.output),
        "kl": kl_penalty(scaled, mean_activation, s.rho, s.beta * step.ramp(s.beta_warmup)),
        "weight_decay": s.weight_decay * weight_decay(params),
    }
    if s.l1 is not None:
        values["l1"] = s.l1 * l1_penalty(codes)
    if s.contractive is not None:
        values["contractive"] = s.contractive * contractive_penalty(params, codes, s.activation, left_out(codes, s))
    if s.partial_sparsity is not None:
        values["partial_sparsity"] = s.partial_sparsity * spine.partial_sparsity(scaled)
    if s.average_sparsity is not None:
        values["average_sparsity"] = s.average_sparsity * spine.average_sparsity(scaled, batch_mean, s.average_target)
    return values, batch_mean

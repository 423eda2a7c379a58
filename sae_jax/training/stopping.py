"""Early stopping: a lane stops where the loss on held-out data no longer falls, and stands for its best parameters."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from sae_jax.models.base import Batch, Params, Scalar, Step
from sae_jax.training.config import LaneSettings
from sae_jax.training.optimizers import OPTIMIZERS
from sae_jax.training.shapes import split
from sae_jax.training.step import TrainState


@struct.dataclass
class Stopping:
    """What early stopping carries.

    Attributes:
        best_params: parameters of the best watched point, finished, as what the model remembers belongs to them;
            None where patience is 0.
        best_loss: held-out loss there; infinite before there is one.
        best_at: step of that point, int32; until the schedules have ended, the last step before that.
        stopped_at: step at which patience ran out, int32; -1 where it did not.
    """

    best_params: Params | None
    best_loss: Array
    best_at: Array
    stopped_at: Array

    @property
    def running(self) -> Array:
        """Whether the lane goes on."""
        return self.stopped_at < 0


def start(state: TrainState, settings: LaneSettings) -> Stopping:
    """Before the first step."""
    best = finished(state, settings) if settings.training.patience else None
    return Stopping(best, jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(-1))


def finished(state: TrainState, settings: LaneSettings) -> Params:
    """The parameters that a lane holds if it ends here."""
    return settings.architecture.finish(state.params, state.memory, settings.model)


def heldout_loss(params: Params, x: Batch, settings: LaneSettings) -> Float[Array, ""]:
    """The loss on clean held-out data, every schedule at its end, statistics such as rho_hat measured there."""
    step = Step(*split(x, settings), steps=settings.training.steps)
    terms, _ = settings.architecture.loss(params, None, step, settings.model)
    return functools.reduce(operator.add, terms.values())


def schedules_ended(step: Scalar | Array, settings: LaneSettings) -> Bool[Array, ""]:
    """Whether the warm-ups of the learning rate and of the model have ended.

    Before that, the loss rises with beta and falls with the learning rate, whatever the lane does. A weight that is
    steered to a target L0 makes another loss until the end.
    """
    training = settings.training
    if OPTIMIZERS[training.optimizer].full_batch:
        return jnp.bool_(True)
    return step >= training.steps * jnp.maximum(training.warmup, settings.architecture.ramp(settings.model))


def watch(stopping: Stopping, state: TrainState, heldout: Batch, settings: LaneSettings) -> Stopping:
    """Judge a logged point on held-out data; patience above 0."""
    loss = heldout_loss(state.params, heldout, settings)
    ended = schedules_ended(state.step, settings)
    watched = stopping.running & ended & (state.diverged_at < 0)
    better = watched & (loss < stopping.best_loss)
    best_at = jnp.where(better | ~ended, state.step, stopping.best_at)
    out_of_patience = watched & (state.step - best_at >= settings.training.patience)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), finished(state, settings), stopping.best_params)
    return Stopping(
        best_params=best,
        best_loss=jnp.where(better, loss, stopping.best_loss),
        best_at=best_at,
        stopped_at=jnp.where(out_of_patience, state.step, stopping.stopped_at),
    )

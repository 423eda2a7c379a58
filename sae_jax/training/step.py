"""One training step: a pure function over an explicit state."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array

from sae_jax.data.checks import check_key
from sae_jax.data.corruption import corrupt
from sae_jax.models.base import Across, Batch, Key, Params, Step
from sae_jax.settings import LARGEST, UserError, check_type, check_whole
from sae_jax.training.config import LaneSettings, check_exact, check_lane
from sae_jax.training.optimizers import OPTIMIZERS, forgotten, learning_rate
from sae_jax.training.shapes import check_rows, split

# Curves by name: "loss", and "loss_TERM" for every term of it.
Curves = dict[str, Array]


@struct.dataclass
class TrainState:
    """Everything that training one lane carries from step to step.

    Attributes:
        params: parameter pytree.
        opt_state: the optimizer's state.
        memory: what the model carries; of the classic one, the `SparsityState` with the running mean activation.
        step: steps taken, int32.
        diverged_at: step that was not taken, see `train_step`, int32; -1 where all were. From there on the lane is
            frozen with its last finite parameters.
    """

    params: Params
    opt_state: Any
    memory: Any
    step: Array
    diverged_at: Array


class Keys(NamedTuple):
    """The PRNG keys of a seed, one for each use."""

    init: Key
    batches: Key
    noise: Key
    layers: Key


def keys_of(key: Key) -> Keys:
    """Split a seed's key into one for each use."""
    check_key(key)
    return Keys(*(jax.random.fold_in(key, i) for i in range(len(Keys._fields))))


def init_state(key: Key, settings: LaneSettings, d_in: int, statistics: Mapping[str, Any] | None = None) -> TrainState:
    """The state before the first step.

    Args:
        key: draws the parameters.
        settings: of the lane.
        d_in: numbers of a row of samples; of a transcoder inputs and outputs together.
        statistics: of the samples by name, each [d_in], where the model starts from such; see
            `sae_jax.data.statistics.statistics_of`.

    Raises:
        UserError: an argument is not what it should be, a statistic that the model starts from is missing, or the
            optimizer cannot train it.
    """
    check_key(key)
    check_lane(settings)
    check_exact(settings)
    check_whole("d_in", d_in)
    model = settings.architecture
    if statistics is not None:
        check_type("statistics", statistics, Mapping, "arrays by name", "use statistics_of")
    given = statistics or {}
    for name in model.statistics(settings.model):
        if name not in given:
            raise UserError(
                f"statistics must hold the {name} of the samples, from which parameters start: got "
                f"{', '.join(given) or 'none'}; use statistics_of(samples, ['{name}'])"
            )
        if (shape := jnp.shape(given[name])) != (d_in,):
            raise UserError(
                f"statistics must be arrays [{d_in}], as d_in says: got {name} of shape {list(shape)}; "
                "use those of samples of that width"
            )
    params = model.place(model.init(key, d_in, settings.model), given, settings.model)
    memory = model.memory(settings.model)

    def zeros() -> Any:
        def rest(params: Params, memory: Any, x: Batch) -> Any:
            return model.loss(params, memory, Step(*split(x, settings), steps=settings.training.steps), settings.model)

        one = jax.ShapeDtypeStruct((1, d_in), jnp.float32)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(rest, params, memory, one))

    opt_state = OPTIMIZERS[settings.training.optimizer].init(params, settings.training, zeros)
    return TrainState(params, opt_state, memory, jnp.int32(0), jnp.int32(-1))


def train_step(
    settings: LaneSettings,
    state: TrainState,
    batch: Batch,
    axis_name: str | None = None,
    noise_key: Key | None = None,
) -> tuple[TrainState, Curves]:
    """One optimizer step on one batch.

    The penalty's value and slope use rho_hat as it stood before this batch; afterwards
    rho_hat <- lambda rho_hat + (1 - lambda) mean_i h_i. A step whose loss, or the norm of whose gradients or
    updates (with Adam, the square of whose learning rate), is not finite is not taken, and no later one is.

    Args:
        settings: swept settings are scalars.
        state: state before the step.
        batch: samples, [batch, d_in], of a transcoder [batch, d_in + outputs]; this device's share of them under
            data parallelism, which L-BFGS does not do.
        axis_name: named axis over which the batch is split (vmap, shard_map or pmap); None for a whole batch.
        noise_key: PRNG key of this step's corruption; may be None where corruption is none.

    Returns:
        (state after the step, loss and its terms on the batch before it); the same on every device of the axis.

    Raises:
        UserError: corruption without a key, L-BFGS with a named axis, a batch of another rank, width or kind, or a
            setting out of its range, where it is known before the program runs.
    """
    check_type("state", state, TrainState, "a TrainState", "use init_state")
    batch = check_rows(batch, state.params, settings)
    if not jnp.issubdtype(batch.dtype, jnp.floating):
        batch = jnp.asarray(batch, jnp.float32)  # Noise is of the kind of what it is added to.
    if noise_key is not None:
        check_key(noise_key, "noise_key")
    model, training = settings.architecture, settings.training
    optimizer = OPTIMIZERS[training.optimizer]
    if optimizer.full_batch and axis_name is not None:
        raise UserError(
            f"optimizer {training.optimizer} takes the whole batch on one device: got a named axis; use adam or sgd"
        )
    _check_axis(axis_name)
    x, target = split(batch, settings)
    if training.corruption != "none":
        if noise_key is None:
            raise UserError(f"corruption {training.corruption} needs a noise_key: got none; see keys_of")
        x = corrupt(noise_key, x, training.corruption, training.noise, axis_name)
    # A rising beta or a falling k would take one fixed loss away from under L-BFGS.
    number = None if optimizer.full_batch else state.step
    step = Step(x, target, number, training.steps, Across(axis_name))

    def loss_of(params: Params) -> tuple[Array, Any]:
        terms, seen = model.loss(params, state.memory, step, settings.model)
        return functools.reduce(operator.add, terms.values()), (terms, seen)

    def prepared(gradients: Params) -> Params:
        whole = gradients if axis_name is None else jax.lax.pmean(gradients, axis_name)
        return model.gradient(state.params, whole, settings.model)

    rate = learning_rate(state.step, training)
    proposal = optimizer.propose(loss_of, state.params, state.opt_state, training, rate, prepared)
    terms, seen = proposal.rest
    curves = curves_of(proposal.loss, terms)
    if axis_name is not None:
        curves = jax.lax.pmean(curves, axis_name)
    sizes = jnp.stack([curves["loss"], optax.tree.norm(proposal.gradients), proposal.size])
    alive = state.diverged_at < 0

    def taken() -> TrainState:
        updates, opt_state = proposal.update()
        rates = {} if optimizer.full_batch else model.rates(state.params, settings.model)
        updates = updates | {name: share * updates[name] for name, share in rates.items()}
        # Where the addition leaves float32, it stops at the largest number, from where the next loss is not finite.
        params = jax.tree.map(lambda w, u: jnp.clip(w + u, -LARGEST, LARGEST), state.params, updates)
        memory = model.update(state.memory, seen, settings.model)
        params = model.constrain(params, state.memory, settings.model)
        params, fresh = model.renew(params, seen, settings.model)
        opt_state = forgotten(opt_state, params, fresh) if fresh else opt_state
        after = TrainState(params, opt_state, memory, state.step + 1, state.diverged_at)
        # Parameters of another precision than the rest of the state leave each in its own.
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    def frozen() -> TrainState:
        return dataclasses.replace(state, diverged_at=jnp.where(alive, state.step, state.diverged_at))

    return jax.lax.cond(alive & jnp.all(jnp.isfinite(sizes)), taken, frozen), curves


def _check_axis(axis_name: Any) -> None:
    """Refuse the name of an axis over which nothing is mapped."""
    check_type("axis_name", axis_name, (str, type(None)), "the name of an axis", "leave it out for a whole batch")
    try:
        _ = axis_name is None or jax.lax.axis_size(axis_name)
    except NameError:
        raise UserError(
            f"axis_name must be that of vmap, shard_map or pmap around the step: got {axis_name!r}, which is none; "
            "leave it out for a whole batch"
        ) from None


def curves_of(loss: Any, terms: dict[str, Any]) -> dict[str, Any]:
    """The loss and its terms by the names of their curves."""
    return {"loss": loss} | {f"loss_{name}": value for name, value in terms.items()}

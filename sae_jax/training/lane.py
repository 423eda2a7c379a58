"""A whole training of one lane: any number of steps, the points that it logs, and its end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sae_jax.data.checks import as_array, check_fits, check_key, checked
from sae_jax.data.feed import draw_whole, resident
from sae_jax.data.statistics import statistics_of
from sae_jax.models.base import Batch, Key, Params, Scalar
from sae_jax.settings import UserError
from sae_jax.training import stopping
from sae_jax.training.config import LaneSettings, check_lane, check_steps
from sae_jax.training.optimizers import OPTIMIZERS
from sae_jax.training.step import Curves, TrainState, curves_of, init_state, keys_of, train_step
from sae_jax.training.stopping import Stopping

LOGGED_POINTS = 200
# The parameter that holds a unit's direction.
ROWS = "decoder_weight"


@struct.dataclass
class LaneState:
    """A lane between two steps: its training state, and what early stopping knows of it."""

    train: TrainState
    stopping: Stopping


def windows(steps: int) -> np.ndarray:
    """Where logged points end: at most LOGGED_POINTS step numbers, evenly apart, the last one `steps`."""
    every = max(math.ceil(steps / LOGGED_POINTS), 1)
    return np.minimum(np.arange(every, max(steps, 1) + every, every), steps)


def snapshot_steps(settings: LaneSettings) -> np.ndarray:
    """Steps at which decoder rows are compared between seeds: 0, and logged ones evenly apart; none where it is off."""
    if not settings.training.snapshots or not has_rows(settings):
        return np.zeros(0, int)
    stops = windows(settings.training.steps)
    places = np.ceil(np.linspace(0, len(stops), settings.training.snapshots + 1)[1:]).astype(int) - 1
    return np.unique([0, *stops[places]])


def row_width(settings: LaneSettings, d_in: int) -> int:
    """Numbers of a decoder row; d_in is that of a row of samples."""
    return settings.architecture.outputs(settings.model) or d_in


def snapshot_bytes(settings: LaneSettings, d_in: int) -> int:
    """Bytes of a lane's decoder rows at the steps at which they are compared between seeds."""
    return 4 * len(snapshot_steps(settings)) * int(settings.model.d_hidden) * row_width(settings, d_in)


def has_rows(settings: LaneSettings) -> bool:
    """Whether lanes have decoder rows, one for each unit."""
    rows = settings.architecture.parameters(settings.model).get(ROWS)
    return rows is not None and rows.dims in (("unit", "input"), ("unit", "target"))


def init_lane(key: Key, settings: LaneSettings, d_in: int, statistics: Mapping[str, Any] | None = None) -> LaneState:
    """A lane before its first step; `key` is the seed's key, the other arguments those of `init_state`."""
    train = init_state(keys_of(key).init, settings, d_in, statistics)
    return LaneState(train, stopping.start(train, settings))


def curve_names(settings: LaneSettings) -> list[str]:
    """The names of a lane's curves: loss, and one for each of its terms."""
    return list(curves_of(None, dict.fromkeys(settings.architecture.terms(settings.model))))


def no_curves(settings: LaneSettings, dtype: Any = jnp.float32) -> Curves:
    """The sum of the curves over no steps."""
    return {name: jnp.zeros((), dtype) for name in curve_names(settings)}


def train_steps(
    settings: LaneSettings,
    draw: Callable[..., Batch],
    lane: LaneState,
    total: Curves,
    block: Any,
    key: Key,
    start: Scalar | Array,
    stop: Scalar | Array,
    axis_name: str | None = None,
) -> tuple[LaneState, Curves]:
    """Train one lane from step `start` to step `stop`, drawing minibatches on the device.

    Args:
        settings: swept settings are scalars.
        draw: of a `data.feed.Feed`.
        lane: the lane at step start.
        total: curves summed over the steps since the last logged point.
        block: what `draw` reads.
        key: the seed's key.
        start, stop: step numbers; they may be traced, so that one program serves any number of steps.
        axis_name: named axis whose devices each take their share of a batch's samples; None for whole batches.

    Returns:
        (lane at step stop, total with these steps); a lane that has stopped early stays as it is.
    """
    keys, training = keys_of(key), settings.training
    draw = draw_whole if OPTIMIZERS[training.optimizer].full_batch else draw

    def body(step: Array, carry: tuple[TrainState, Curves]) -> tuple[TrainState, Curves]:
        state, total = carry
        batch = draw(block, keys.batches, step, training.batch_size, axis_name)
        noise_key = jax.random.fold_in(keys.noise, step)
        state, curves = train_step(settings, state, batch, axis_name, noise_key)
        return state, jax.tree.map(jnp.add, total, curves)

    state, total = jax.lax.fori_loop(start, stop, body, (lane.train, total))
    if training.patience:
        state = jax.tree.map(lambda new, old: jnp.where(lane.stopping.running, new, old), state, lane.train)
    return dataclasses.replace(lane, train=state), total


def end_window(
    settings: LaneSettings,
    lane: LaneState,
    total: Curves,
    heldout: Float[Array | np.ndarray, "heldout d_in"],
    length: Scalar | Array,
) -> tuple[LaneState, Curves]:
    """Log a point: the averages of a window of steps, and what early stopping makes of held-out data.

    Args:
        settings: swept settings are scalars.
        lane: the lane at the window's last step.
        total: curves summed over the window.
        heldout: samples to watch; only looked at where patience is above 0.
        length: steps in the window; where it is 0, the window goes on and the lane stays as it is.

    Returns:
        (the lane, curves averaged over the window; NaN where the lane had diverged or stopped).
    """
    state, running = lane.train, lane.stopping.running
    shown = running & (state.diverged_at < 0)
    curves = jax.tree.map(lambda value: jnp.where(shown, value / jnp.maximum(length, 1), jnp.nan), total)
    if not settings.training.patience:
        return lane, curves

    def watch() -> LaneState:
        return LaneState(state, stopping.watch(lane.stopping, state, heldout, settings))

    return jax.lax.cond(length > 0, watch, lambda: lane), curves


def final_params(lane: LaneState, settings: LaneSettings) -> Params:
    """What a finished lane holds: its best watched parameters under early stopping, else the last."""
    last, best = stopping.finished(lane.train, settings), lane.stopping.best_params
    if best is None:
        return last
    watched = jnp.isfinite(lane.stopping.best_loss)
    return jax.tree.map(lambda of_best, of_last: jnp.where(watched, of_best, of_last), best, last)


def _placed(rows: Any, name: str) -> Array:
    """Samples on the device, checked where they are known before the program runs."""
    if isinstance(rows, jax.core.Tracer):
        return rows
    rows = as_array(rows, name, "[samples, d_in]")
    check_fits(len(rows) if rows.ndim else 0, 4 * rows.size)
    rows = checked(rows, name, ("samples", "d_in"))
    return jnp.asarray(rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32))


def fit(
    settings: LaneSettings,
    train: Float[Array | np.ndarray, "samples d_in"],
    heldout: Float[Array | np.ndarray, "heldout d_in"],
    key: Key,
) -> tuple[LaneState, Curves]:
    """Train one lane from its seed to its last step: a `lax.scan` over windows of steps.

    Args:
        settings: swept settings are scalars.
        train, heldout: samples to train on and to watch for early stopping.
        key: the seed's key, `jax.random.key(seed)`.

    Returns:
        (the finished lane, curves with a leading axis over `windows(steps)`).
    """
    check_lane(settings)
    check_steps([settings.training.steps])
    check_key(key)
    train, heldout = (_placed(rows, name) for name, rows in (("train", train), ("heldout", heldout)))
    if train.shape[1:] != heldout.shape[1:]:
        raise UserError(
            f"heldout must have as many inputs as train: got shape {list(heldout.shape)} beside {list(train.shape)}; "
            "take both of one set"
        )
    stops = windows(settings.training.steps)
    starts = np.concatenate([[0], stops[:-1]])
    draw = resident(train).draw

    def window(lane: LaneState, bounds: Array) -> tuple[LaneState, Curves]:
        start, stop = bounds
        total = no_curves(settings, train.dtype)
        lane, total = train_steps(settings, draw, lane, total, train, key, start, stop)
        return end_window(settings, lane, total, heldout, stop - start)

    names = settings.architecture.statistics(settings.model)
    if names and isinstance(train, jax.core.Tracer):
        raise UserError(f"train must be known before fit is compiled, to start from its {names[0]}: use centre zero")
    lane = init_lane(key, settings, train.shape[1], statistics_of(np.asarray(train), names) if names else None)
    bounds = jnp.asarray(np.stack([starts, stops], axis=1), jnp.int32)
    return jax.lax.scan(window, lane, bounds)

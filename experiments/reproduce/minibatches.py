"""What several reproductions share: Adam on minibatches, for networks that are no autoencoders of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from sae_jax import batch_indices, keys_of, lane_settings
from sae_jax.models.base import Tree
from sae_jax.training.optimizers import learning_rate


def minimize(
    loss: Callable[..., Array],
    start: Tree,
    samples: tuple[Array, ...],
    steps: int,
    batch_size: int,
    rate: float,
    seed: int = 0,
) -> Tree:
    """Parameters after Adam on minibatches, its rate falling by a cosine as in the engine.

    Args:
        loss: (parameters, *batch) -> its mean loss.
        start: parameters before the first step.
        samples: arrays of equally many rows, of which a batch takes some.
        steps, batch_size, rate: of the training.
        seed: draws the batches.
    """
    training = lane_settings(steps=steps, learning_rate=rate).training
    key, optimizer = keys_of(jax.random.key(seed)).batches, optax.scale_by_adam()

    @jax.jit
    def trained(params: Any, samples: tuple[Array, ...]) -> Any:
        def step(carry: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            rows = batch_indices(key, number, len(samples[0]), batch_size)
            gradients = jax.grad(loss)(params, *(array[rows] for array in samples))
            direction, state = optimizer.update(gradients, state)
            now = learning_rate(number, training)
            return (jax.tree.map(lambda w, u: w - now * u, params, direction), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return trained(start, samples)

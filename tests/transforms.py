"""One training step under every transform that splits a batch over four devices."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from sae_jax.data.batches import batch_indices
from sae_jax.training.step import keys_of, train_step

NOISE_KEY = jax.random.key(7)
STEP = jax.jit(train_step, static_argnames="axis_name")


def assert_close(actual, expected, rtol=0.0, atol=0.0):
    """Compare two pytrees leaf by leaf; without tolerances, bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def batches_of(seed, steps, samples, batch_size=32):
    """The batches that a seed draws, [steps, batch, d_in]."""
    draw = jax.jit(
        jax.vmap(lambda t: batch_indices(keys_of(jax.random.key(seed)).batches, t, len(samples), batch_size))
    )
    return samples[np.asarray(draw(np.arange(steps)))]


def with_vmap(settings, state, batch):
    """The step on each quarter of a batch, under vmap with a named axis."""
    step = functools.partial(train_step, settings, state, axis_name="batch", noise_key=NOISE_KEY)
    return jax.jit(jax.vmap(step, axis_name="batch"))(batch.reshape(4, -1, batch.shape[-1]))


def with_pmap(settings, state, batch):
    """The step on each quarter of a batch, under pmap."""
    step = functools.partial(train_step, settings, state, axis_name="batch", noise_key=NOISE_KEY)
    return jax.pmap(step, axis_name="batch")(batch.reshape(4, -1, batch.shape[-1]))


def with_shard_map(settings, state, batch):
    """The step on each quarter of a batch, under shard_map."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    step = jax.shard_map(
        lambda part: jax.tree.map(lambda leaf: leaf[None], train_step(settings, state, part, "batch", NOISE_KEY)),
        mesh=mesh,
        in_specs=PartitionSpec("batch"),
        out_specs=PartitionSpec("batch"),
        check_vma=False,
    )
    return jax.jit(step)(batch)

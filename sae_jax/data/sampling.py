"""Samples of features in superposition, drawn inside a compiled step.

    x_i = b + sum_j m_ij d_j,  m_ij = relu(N(mean_j, std_j^2)) where feature j fires on sample i, else 0

Features fire independently, or together by a Gaussian copula: feature j fires where g_ij > Phi^-1(1 - p_j), g_i a
normal vector whose correlations are given. In a hierarchy a feature fires only where its parent does.

Source: Elhage et al. 2022, "Toy models of superposition" (independent features); Chanin et al. 2026, "SynthSAEBench",
arXiv 2602.14687 (copula, hierarchy, magnitudes).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.data.draws import normals, uniforms, words
from sae_jax.models.base import Key

# What magnitudes, firing, what correlates it, and the winners among siblings are drawn by.
STREAMS = 4


class Tree(NamedTuple):
    """The shape of a hierarchy, part of the compiled program; features are numbered level by level from the roots.

    Attributes:
        roots: features without a parent that have children.
        branching: children of every feature above the last level.
        depth: levels below the roots.
        exclusive: whether at most one child of a parent fires, a random one of those that would.
        scaled: whether a child's magnitude is multiplied by that of its parent over the parent's mean.
    """

    roots: int
    branching: int
    depth: int
    exclusive: bool = True
    scaled: bool = True

    @property
    def levels(self) -> list[slice]:
        """The features of every level, the roots first."""
        sizes = [self.roots * self.branching**level for level in range(self.depth + 1)]
        stops = itertools.accumulate(sizes)
        return [slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]

    def counted(self, most: int) -> int:
        """How many features it has; levels are counted no further than past `most`."""
        if self.branching == 1:
            return self.roots * (self.depth + 1)
        total = level = self.roots
        for _ in range(self.depth):
            if total > most:
                break
            level *= self.branching
            total += level
        return total

    @property
    def features(self) -> int:
        """How many features it has; those numbered after them are in no hierarchy."""
        return self.levels[-1].stop

    def parents(self, features: int) -> np.ndarray:
        """The parent of each of some features, int32 [features]; -1 where it has none."""
        parents = np.full(features, -1, np.int32)
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            parents[level] = np.repeat(np.arange(above.start, above.stop), self.branching)
        return parents


class World(NamedTuple):
    """Arrays that samples are drawn from; what is off is None.

    Attributes:
        directions: d, unit rows, [features, d_in].
        probabilities: p, of a feature to fire where nothing else hinders it, [features].
        thresholds: Phi^-1(1 - p), [features].
        means, stds: of the magnitudes before the relu, [features].
        bias: b, [d_in].
        factor: A of correlated firing, g = A z + sqrt(rest) e, with z and e standard normal, [features, rank].
        rest: sqrt of what A leaves of each variance of 1, [features]; None where it leaves nothing.
    """

    directions: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    bias: np.ndarray
    factor: np.ndarray | None = None
    rest: np.ndarray | None = None


@functools.lru_cache(maxsize=64)
def sampler(tree: Tree | None) -> Callable[[World, Key, int], Array]:
    """(world, key, batch_size) -> samples [batch, d_in]; the same function for the same shape of a hierarchy."""

    def samples(world: World, key: Key, batch_size: int) -> Array:
        return as_samples(world, magnitudes(tree, world, key, batch_size))

    return samples


def as_samples(world: World, sizes: Float[Array, "features batch"]) -> Float[Array, "batch d_in"]:
    """x = b + m d."""
    return sizes.T @ world.directions + jnp.asarray(world.bias)[None]


def magnitudes(tree: Tree | None, world: World, key: Key, batch_size: int) -> Float[Array, "features batch"]:
    """Magnitudes of every feature on every sample, 0 where it does not fire.

    Features stand in front: what holds for a family of them then holds for whole rows of samples.

    Args:
        tree: the hierarchy; None is none.
        world: what they are drawn from.
        key: of the batch.
        batch_size: samples.
    """
    streams = words(key, STREAMS)
    shape = world.means.shape[0], batch_size
    if tree is None and world.factor is None:
        fires = uniforms(streams[1], *shape) < world.probabilities[:, None]
        return jnp.where(fires, _sizes(world, normals(streams[0], *shape)), 0)
    # A loop, or compilers would draw the numbers again wherever they are read: a parent's for all of its descendants.
    of_size, of_firing, lots = jax.lax.map(lambda stream: normals(stream, *shape), streams[:3])
    if world.factor is not None:
        shared = world.factor @ normals(streams[3], world.factor.shape[1], batch_size)
        of_firing = shared if world.rest is None else shared + world.rest[:, None] * of_firing
    sizes = jnp.where(of_firing > world.thresholds[:, None], _sizes(world, of_size), 0)
    return sizes if tree is None else _below_parents(tree, sizes, world.means, lots)


def _sizes(world: World, numbers: Float[Array, "features batch"]) -> Float[Array, "features batch"]:
    """relu(N(mean, std^2)) of standard normal numbers."""
    return jax.nn.relu(world.means[:, None] + world.stds[:, None] * numbers)


def _below_parents(
    tree: Tree, sizes: Float[Array, "features batch"], means: Any, lots: Float[Array, "features batch"]
) -> Float[Array, "features batch"]:
    """Magnitudes without those of children whose parent is silent, or whose sibling has drawn the larger lot."""
    levels = tree.levels
    above, magnitudes = sizes[levels[0]], [sizes[levels[0]]]
    for parents, children in itertools.pairwise(levels):
        gate = above / means[parents, None] if tree.scaled else (above > 0).astype(sizes.dtype)
        families = above.shape[0], tree.branching, above.shape[1]
        family = sizes[children].reshape(families) * gate[:, None]
        if tree.exclusive:
            drawn = jnp.where(family > 0, lots[children].reshape(families), -jnp.inf)
            winner = jnp.argmax(drawn, axis=1)[:, None]
            family = jnp.where(jnp.arange(tree.branching)[None, :, None] == winner, family, 0)
        above = family.reshape(-1, above.shape[1])
        magnitudes.append(above)
    return jnp.concatenate([*magnitudes, sizes[tree.features :]])

"""The features of a superposition, made once from its settings: directions, probabilities, magnitudes, correlations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from sae_jax.data.sampling import Tree
from sae_jax.models.base import Scalar

# Of a feature's variance in the copula: as much at least is its own, and an eigenvalue of a full matrix is no less.
LEAST_OWN = 0.01


def zipf(features: int, exponent: float, low: float, high: float) -> Float[np.ndarray, " features"]:
    """p_j = low + (high - low) (j^-a - n^-a) / (1 - n^-a), j from 1 to n: Zipf's law, from high down to low."""
    ranks = np.arange(1, features + 1) ** -exponent
    return low + (high - low) * (ranks - ranks[-1]) / max(1 - ranks[-1], np.finfo(float).tiny)


def directions(
    start: Float[np.ndarray, "features d_in"], steps: int, rate: float
) -> Float[np.ndarray, "features d_in"]:
    """Unit rows, made less alike by some steps of Adam.

        sum_{i != j} (d_i . d_j)^2 + n sum_i (||d_i||^2 - 1)^2

    Args:
        start: rows of any norm.
        steps: of Adam.
        rate: its learning rate.

    Source: Chanin et al. 2026, arXiv 2602.14687 (the sum of squares).
    """
    rows = start / np.linalg.norm(start, axis=1, keepdims=True)
    return np.asarray(_apart(jnp.asarray(rows, jnp.float32), steps, rate))


@functools.partial(jax.jit, static_argnames="steps")
def _apart(rows: Array, steps: int, rate: Scalar | Array) -> Array:
    def likeness(rows: Array) -> Array:
        # The squares of all dot products of rows are, summed, those of the columns, of which there are fewer.
        squares = jnp.sum(jnp.square(rows), axis=1)
        others = jnp.sum(jnp.square(rows.T @ rows)) - jnp.sum(jnp.square(squares))
        return others + rows.shape[0] * jnp.sum(jnp.square(squares - 1))

    adam = optax.adam(rate)

    def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
        change, state = adam.update(jax.grad(likeness)(carry[0]), carry[1])
        return (carry[0] + change, state), None

    rows = jax.lax.scan(step, (rows, adam.init(rows)), None, steps)[0][0]
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def compensated(probabilities: Float[np.ndarray, " features"], tree: Tree) -> Float[np.ndarray, " features"]:
    """Probabilities that leave every feature of a hierarchy about as frequent as it would be outside of it.

        p_j / p_parent, times 1 + sum_{siblings k != j} p_k / p_parent where only one of them fires; at most 1

    Exact for siblings that are not exclusive; else but for terms of second order in p_k / p_parent.

    Source: Chanin et al. 2026, arXiv 2602.14687; SAELens 6.54, `Hierarchy`.
    """
    result = probabilities.copy()
    for parents, children in zip(tree.levels, tree.levels[1:], strict=False):
        of_parent = probabilities[parents][:, None]
        family = probabilities[children].reshape(-1, tree.branching)
        others = family.sum(axis=1, keepdims=True) - family if tree.exclusive else 0.0
        result[children] = (family / of_parent * (1 + others / of_parent)).ravel()
    return np.minimum(result, 1.0)


def low_rank(
    rng: np.random.Generator, features: int, rank: int, scale: float
) -> tuple[Float[np.ndarray, "features rank"], Float[np.ndarray, " features"]]:
    """A and sqrt(rest) of g = A z + sqrt(rest) e: A_jk = N(0, scale^2), rows that leave less than .01 shortened.

    Source: Chanin et al. 2026, arXiv 2602.14687 (the correlation of SynthSAEBench).
    """
    factor = scale * rng.standard_normal((features, rank))
    longest = np.sqrt(1 - LEAST_OWN)
    factor *= longest / np.maximum(np.linalg.norm(factor, axis=1, keepdims=True), longest)
    return factor, np.sqrt(1 - np.sum(factor**2, axis=1))


def full_rank(rng: np.random.Generator, features: int, scale: float) -> Float[np.ndarray, "features features"]:
    """The Cholesky factor of a correlation matrix: N(0, scale^2) off the diagonal, but for what makes it one.

    Eigenvalues below .01 are raised to it, and variances set to 1 again.
    """
    above = np.triu(scale * rng.standard_normal((features, features)), 1)
    values, vectors = np.linalg.eigh(above + above.T + np.eye(features))
    matrix = (vectors * np.maximum(values, LEAST_OWN)) @ vectors.T
    sides = np.sqrt(np.diag(matrix))
    return np.linalg.cholesky(matrix / np.outer(sides, sides))


def thresholds(probabilities: Float[np.ndarray, " features"]) -> Float[np.ndarray, " features"]:
    """Phi^-1(1 - p): what a standard normal number exceeds with a probability p."""
    from scipy.special import ndtri

    return -ndtri(probabilities)

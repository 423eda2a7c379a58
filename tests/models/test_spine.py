"""SPINE's penalties against their formulas, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import lane_settings
from sae_jax.models.classic_loss import terms
from sae_jax.models.spine import average_sparsity, partial_sparsity

CODES = np.random.default_rng(0).uniform(size=(6, 4)).astype(np.float32)


def test_partial_sparsity_is_0_at_both_ends_alone():
    assert float(partial_sparsity(jnp.asarray([[0.0, 1.0], [1.0, 0.0]]))) == 0
    expected = np.mean([[h * (1 - h) for h in row] for row in CODES.tolist()])
    assert float(partial_sparsity(jnp.asarray(CODES))) == pytest.approx(expected, rel=1e-5)


def test_average_sparsity_counts_what_exceeds_the_target_and_its_gradient_is_the_square_s():
    target = float(np.sort(CODES.mean(axis=0))[1:3].mean())  # Two of the four units exceed it.
    expected = np.mean([max(0.0, mean - target) ** 2 for mean in CODES.mean(axis=0).tolist()])

    def stated(codes):
        return average_sparsity(codes, jax.lax.stop_gradient(codes.mean(axis=0)), target)

    def plain(codes):
        return jnp.mean(jnp.square(jnp.maximum(codes.mean(axis=0) - target, 0)))

    assert float(stated(jnp.asarray(CODES))) == pytest.approx(expected, rel=1e-5)
    gradient = jax.grad(stated)(jnp.asarray(CODES))
    np.testing.assert_allclose(gradient, jax.grad(plain)(jnp.asarray(CODES)), rtol=1e-5)
    assert np.sum(np.any(np.asarray(gradient) != 0, axis=0)) == 2


def test_the_running_average_is_named_by_the_term_alone_that_reads_it():
    every = terms(lane_settings(partial_sparsity=0.1, average_sparsity=0.1).model)
    assert {"partial_sparsity", "average_sparsity"} < set(every)
    assert [name for name, term in every.items() if "rho_hat" in term.label] == ["kl"]

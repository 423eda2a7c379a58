"""The KL penalty against its formula, its known facts, and autodiff where they must agree and where they must not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import memory
from sae_jax.models.kl import EPSILON, kl_divergence, kl_penalty, kl_slope
from sae_jax.settings import UserError
from tests import references


def f(rho, q):
    """One value of the divergence in float64."""
    with jax.enable_x64(True):
        return float(kl_divergence(jnp.float64(rho), jnp.asarray([q], jnp.float64))[0])


@pytest.fixture
def codes():
    return jax.nn.sigmoid(jax.random.normal(jax.random.key(0), (12, 5)) - 1)


@pytest.mark.parametrize("rho", [0.01, 0.05, 0.2, 0.5, 0.9])
def test_slope_and_curvature_are_those_of_the_formula(rho):
    # Fact 1: f' = (q - rho) / (q (1 - q)), f'' = rho / q^2 + (1 - rho) / (1 - q)^2, f''(rho) = 1 / (rho (1 - rho)).
    with jax.enable_x64(True):
        q = jnp.linspace(0.005, 0.995, 67)
        rho64 = jnp.float64(rho)
        np.testing.assert_allclose(kl_slope(rho64, q), (q - rho) / (q * (1 - q)), rtol=1e-9, atol=1e-12)
        slope = jax.vmap(jax.grad(lambda p: kl_divergence(rho64, p[None])[0]))(q)
        np.testing.assert_allclose(slope, kl_slope(rho64, q), rtol=1e-9, atol=1e-12)
        curvature = jax.vmap(jax.grad(lambda p: kl_slope(rho64, p[None])[0]))
        np.testing.assert_allclose(curvature(q), rho / q**2 + (1 - rho) / (1 - q) ** 2, rtol=1e-9)
        np.testing.assert_allclose(curvature(jnp.asarray([rho], float)), 1 / (rho * (1 - rho)), rtol=1e-9)


@pytest.mark.parametrize("rho", [0.05, 0.2, 0.4])
def test_below_one_half_the_zero_side_is_the_steeper(rho):
    # Fact 2.
    for d in np.linspace(0.05, 0.95, 13) * rho:
        assert f(rho, rho - d) > f(rho, rho + d)
    assert f(0.05, 0.025) / f(0.05, 0.075) == pytest.approx(1.97, abs=0.005)


def test_symmetry_convexity_and_bounds():
    # Fact 3: f(rho, q) = f(1 - rho, 1 - q); convex; 2 (q - rho)^2 <= f <= (q - rho)^2 / (q (1 - q)).
    grid = np.linspace(0.02, 0.98, 25)
    for rho in (0.03, 0.3, 0.7):
        values = np.array([f(rho, q) for q in grid])
        np.testing.assert_allclose(values, [f(1 - rho, 1 - q) for q in grid], rtol=1e-9, atol=1e-15)
        assert np.all(np.diff(values, 2) > 0)
        assert np.all(values >= 2 * (grid - rho) ** 2 - 1e-15)
        assert np.all(values <= (grid - rho) ** 2 / (grid * (1 - grid)) + 1e-15)


def test_divergence_at_zero_is_weak():
    # Fact 4.
    assert f(0.01, 1e-6) == pytest.approx(0.082, abs=5e-4)
    assert f(0.01, 0.5) == pytest.approx(0.637, abs=5e-4)


def test_minibatch_means_bias_the_penalty_and_the_running_mean_shrinks_that():
    # Fact 5: binary units at target bias it by 1 / (2 B) each, the running mean by (1 - l) / (1 + l) times that.
    rho, batch, decay, draws = 0.2, 200, 0.9, 20_000
    means = np.random.default_rng(0).binomial(batch, rho, size=draws) / batch
    with jax.enable_x64(True):
        bias = float(jnp.mean(kl_divergence(jnp.float64(rho), jnp.asarray(means))))

        def take(state, mean):
            state = memory.update(state, mean[None], jnp.float64(decay))
            return state, memory.estimate(state, jnp.float64(rho))

        start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), memory.start(rho, 1, "rho"))
        _, running = jax.lax.scan(take, start, jnp.asarray(means))
        shrunk = float(jnp.mean(kl_divergence(jnp.float64(rho), running[:, 0])))
    assert bias == pytest.approx(1 / (2 * batch), rel=0.05)
    assert shrunk / bias == pytest.approx((1 - decay) / (1 + decay), rel=0.1)


def test_value_and_gradient_against_the_reference(codes):
    rho, beta = 0.05, 3.0
    mean_activation = jnp.asarray([0.01, 0.05, 0.2, 0.6, 0.99])
    value, gradient = jax.value_and_grad(kl_penalty)(codes, mean_activation, rho, beta)
    assert float(value) == pytest.approx(beta * references.kl_sum(rho, mean_activation), rel=1e-5)
    expected = references.kl_gradient_at_codes(rho, beta, mean_activation, len(codes))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_with_the_batchs_own_mean_the_rule_is_what_autodiff_gives(codes):
    rho, beta = 0.05, 3.0

    def custom(h):
        return kl_penalty(h, jnp.mean(h, axis=0), rho, beta)

    def plain(h):
        return beta * jnp.sum(kl_divergence(rho, jnp.mean(h, axis=0)))

    np.testing.assert_allclose(jax.grad(custom)(codes), jax.grad(plain)(codes), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_through_the_running_mean_autodiff_gives_one_minus_lambda_times_the_rule(codes, decay):
    # Fact 6.
    rho, beta = 0.05, 3.0
    state = memory.start(0.1, 5, "rho")

    def after(h):
        return memory.estimate(memory.update(state, jnp.mean(h, axis=0), decay), rho)

    rule = jax.grad(lambda h: kl_penalty(h, jax.lax.stop_gradient(after(h)), rho, beta))(codes)
    autodiff = jax.grad(lambda h: beta * jnp.sum(kl_divergence(rho, after(h))))(codes)
    np.testing.assert_allclose(autodiff, (1 - decay) * rule, rtol=1e-4)


@pytest.mark.parametrize("mean", [-0.3, 0.0, 1.0, 1.7])
def test_outside_the_unit_interval_value_and_slope_are_finite_and_point_home(codes, mean):
    rho, beta = 0.05, 3.0
    mean_activation = jnp.full(5, mean)
    value, (to_codes, to_mean, to_rho, to_beta) = jax.value_and_grad(kl_penalty, argnums=(0, 1, 2, 3))(
        codes, mean_activation, rho, beta
    )
    for result in (value, to_codes, to_mean, to_rho, to_beta):
        assert np.all(np.isfinite(result))
    assert np.all(to_codes > 0) if mean > rho else np.all(to_codes < 0)
    # 1 - EPSILON is rounded in float32, which moves the tangent there by a few per cent.
    assert float(value) == pytest.approx(beta * 5 * references.kl(rho, mean), rel=0.06)


def test_numbers_that_are_known_where_a_program_is_traced_are_part_of_it(codes):
    rho, beta = jnp.float32(0.05), jnp.float32(3.0)
    traced = jax.jit(lambda h: kl_penalty(h, h.mean(0), rho, beta) + kl_divergence(rho, h.mean(0)).sum())(codes)
    alone = kl_penalty(codes, codes.mean(0), rho, beta) + kl_divergence(rho, codes.mean(0)).sum()
    np.testing.assert_allclose(traced, alone, rtol=1e-5)


@pytest.mark.parametrize("end", [EPSILON, 1 - EPSILON])
def test_value_and_slope_are_continuous_where_the_tangent_begins(end):
    with jax.enable_x64(True):
        q = jnp.asarray([end - 1e-12, end + 1e-12])
        value, slope = kl_divergence(jnp.float64(0.05), q), kl_slope(jnp.float64(0.05), q)
    assert float(value[1] - value[0]) == pytest.approx(0, abs=1e-5)
    assert float(slope[1] / slope[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.5, 1.7])
def test_rho_and_beta_get_their_true_derivatives(codes, mean):
    with jax.enable_x64(True):
        h, q = codes.astype(jnp.float64), jnp.full(5, mean, jnp.float64)
        rho, beta, d = 0.05, 3.0, 1e-6
        to_rho, to_beta = jax.grad(kl_penalty, argnums=(2, 3))(h, q, rho, beta)
        numeric = (kl_penalty(h, q, rho + d, beta) - kl_penalty(h, q, rho - d, beta)) / (2 * d)
        np.testing.assert_allclose(to_rho, numeric, rtol=1e-6)
        np.testing.assert_allclose(to_beta, kl_penalty(h, q, rho, 1.0), rtol=1e-12)


def test_no_gradient_reaches_the_mean_activation(codes):
    gradient = jax.grad(kl_penalty, argnums=1)(codes, jnp.full(5, 0.3), 0.05, 3.0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("beta", [-1, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused_in_a_line(codes, beta):
    with pytest.raises(UserError, match=f"^beta must be >= 0 and finite: got {beta}; 3 is a usual one$"):
        kl_penalty(codes, codes[0], 0.1, beta)


def test_of_traced_arguments_the_kind_alone_is_looked_at(codes):
    assert np.isnan(jax.jit(kl_penalty)(codes, codes[0], 2.0, 1.0))


def test_strict_dtype_promotion(codes):
    with jax.numpy_dtype_promotion("strict"):
        q, rho, beta = jnp.full(5, 0.3), jnp.float32(0.05), jnp.float32(3)
        gradients = jax.grad(kl_penalty, argnums=(0, 1, 2, 3))(codes, q, rho, beta)
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype("float32")}

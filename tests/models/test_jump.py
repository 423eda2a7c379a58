"""The straight-through rules against finite differences of what they smooth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, Step, firing
from sae_jax.models.jump import jump, kernel
from sae_jax.training.config import lane_settings

EPS = 0.4
# Off every edge of the kernel, on both sides of 0, and around two thresholds whose kernels reach below 0 and do not.
GRID = np.linspace(-1.5, 2.5, 40_000, endpoint=False, dtype=np.float32)[:, None] + np.float32(3e-5)
THRESHOLDS = [0.1, 0.7]


def derivatives(threshold, to_input, of):
    """(to z of every sample [n], to theta) of the sum of the codes or the gates."""

    def total(z, theta):
        return jnp.sum(jump(z, theta, EPS, to_input)[of == "gates"])

    to_z, to_theta = jax.grad(total, (0, 1))(jnp.asarray(GRID), jnp.full(1, threshold))
    return np.asarray(to_z)[:, 0], float(to_theta[0])


def codes_and_gates(z, threshold):
    return np.where(z > threshold, z, 0), (z > threshold).astype(float)


def test_values_are_codes_above_the_threshold_and_gates():
    z = np.array([[-1.0, 0.2, 0.5], [0.3, 0.1, 0.7]], np.float32)
    codes, gates = jump(jnp.asarray(z), jnp.array([0.25, 0.2, 0.5]), EPS)
    np.testing.assert_array_equal(codes, np.float32([[0, 0, 0], [0.3, 0, 0.7]]))
    np.testing.assert_array_equal(gates, [[0, 0, 0], [1, 0, 1]])


def test_the_kernel_is_a_rectangle_of_its_width_and_of_area_one():
    distance = np.linspace(-1, 1, 20_001)
    values = np.asarray(kernel(jnp.asarray(distance), EPS))
    np.testing.assert_allclose(values[np.abs(distance) < EPS / 2 - 1e-3], 1 / EPS, rtol=1e-6)
    assert not np.any(values[np.abs(distance) > EPS / 2 + 1e-3])
    assert np.sum(values) * (distance[1] - distance[0]) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_gates_learn_as_their_difference_over_the_kernels_width(threshold, to_input):
    """d/dtheta of a step that is averaged over the kernel is its difference between the kernel's ends."""
    ends = [codes_and_gates(GRID, threshold + side * EPS / 2)[1].sum() for side in (1, -1)]
    expected = (ends[0] - ends[1]) / EPS
    assert derivatives(threshold, to_input, "gates")[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_codes_lose_at_the_threshold_what_they_jump_by(threshold, to_input):
    """Over evenly spread z, d/dtheta sum_i z_i 1[z_i > theta] = -theta times their density."""
    h = EPS / 2
    ends = [codes_and_gates(GRID, threshold + side * h)[0].astype(float).sum() for side in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * h)
    assert expected == pytest.approx(-threshold * len(GRID) / 4, rel=1e-3)
    assert derivatives(threshold, to_input, "codes")[1] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_without_the_kernel_inputs_learn_only_through_active_codes(threshold):
    np.testing.assert_array_equal(derivatives(threshold, False, "codes")[0], GRID[:, 0] > np.float32(threshold))
    assert not np.any(derivatives(threshold, False, "gates")[0])


@pytest.mark.parametrize("of", ["codes", "gates"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_with_it_they_learn_as_under_a_step_that_is_averaged_over_thresholds(of, threshold):
    """Mean over evenly spread z of d/dz, against the rise of the averaged step between the kernel's ends."""
    thresholds = threshold + EPS * ((np.arange(2001) + 0.5) / 2001 - 0.5)
    inside = np.abs(GRID[:, 0] - threshold) < EPS / 2
    ends = GRID[inside][[0, -1], 0].astype(float)
    smooth = [np.mean(codes_and_gates(z, thresholds)[of == "gates"]) for z in ends]
    rise = (smooth[1] - smooth[0]) / (ends[1] - ends[0])
    found = derivatives(threshold, True, of)[0]
    assert np.mean(found[inside]) == pytest.approx(rise, rel=2e-3)
    above = GRID[:, 0] > threshold + EPS / 2
    np.testing.assert_array_equal(found[above], float(of == "codes"))
    assert not np.any(found[GRID[:, 0] < threshold - EPS / 2])


def model_loss(x, settings):
    own = settings.model
    params = MODELS["jumprelu"].init(jax.random.key(0), 3, own)
    # Codes themselves are no part of what is asked: only the penalty's slope.
    return params, lambda params: MODELS["jumprelu"].loss(params, None, Step(x, x), own)[0]["l0"]


def test_the_step_penalty_of_a_dictionary_has_the_slope_of_l0_over_the_kernels_width():
    """Also where units never fire: z far below 0 is not near a small threshold."""
    x = jax.random.normal(jax.random.key(1), (200, 3))
    settings = lane_settings("jumprelu", d_hidden=5, l0=0.3, bandwidth=EPS, rows="unit")
    params, loss = model_loss(x, settings)
    params["threshold"] = jnp.array([0.01, 0.1, 0.15, 0.3, 0.6])
    found = jax.grad(loss)(params)["threshold"]
    z = np.asarray(x) @ np.asarray(params["encoder_weight"]).T
    theta = np.asarray(params["threshold"])
    rates = [np.mean(z > theta + side * EPS / 2, axis=0) for side in (1, -1)]
    expected = 0.3 * (rates[0] - rates[1]) / EPS
    assert np.all(expected < 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_penalty_of_a_target_has_the_slope_of_its_square():
    x = jax.random.normal(jax.random.key(1), (200, 3))
    target, weight = 2.0, 0.3
    values = {"d_hidden": 5, "bandwidth": EPS, "rows": "unit", "target_l0": target, "target_weight": weight}
    params, loss = model_loss(x, lane_settings("jumprelu", **values))
    params["threshold"] = jnp.array([0.01, 0.1, 0.15, 0.3, 0.6])
    z = np.asarray(x) @ np.asarray(params["encoder_weight"]).T
    theta = np.asarray(params["threshold"])
    variance = np.mean(np.sum(np.square(x), axis=1))
    miss = np.mean(np.sum(z > theta, axis=1)) / target - 1
    assert abs(miss) > 0.01
    # Without a number of the step, every schedule has ended.
    scale = weight * 100 * variance
    assert float(loss(params)) == pytest.approx(scale * miss**2, rel=1e-4)
    rates = [np.mean(z > theta + side * EPS / 2, axis=0) for side in (1, -1)]
    expected = scale * 2 * miss / target * (rates[0] - rates[1]) / EPS
    np.testing.assert_allclose(jax.grad(loss)(params)["threshold"], expected, rtol=1e-4)


def test_the_quadratic_penalty_has_the_slope_of_its_difference_over_the_kernels_width():
    """Every pre-activation beside every other's: half of those near a threshold lie above it, whatever others do."""
    target, weight, theta = 1.3, 0.3, np.array([0.1, 0.7, 1.3], np.float32)
    each = np.arange(-1.45, 2.5, 0.2)
    z = np.stack(np.meshgrid(each, each, each), axis=-1).reshape(-1, 3).astype(np.float32)
    values = {"d_hidden": 3, "bandwidth": EPS, "penalty": "quadratic", "target_l0": target, "l0": weight}
    params, loss = model_loss(z, lane_settings("jumprelu", **values))
    params |= {"encoder_weight": jnp.eye(3), "threshold": jnp.asarray(theta)}

    def penalty(thresholds):
        return weight * 2 / target * np.mean((np.sum(z > thresholds, axis=1) - target) ** 2)

    assert float(loss(params)) == pytest.approx(penalty(theta), rel=1e-5)
    half = EPS / 2 * np.eye(3)
    expected = [(penalty(theta + one) - penalty(theta - one)) / EPS for one in half]
    assert np.min(expected) < -0.01 and np.max(expected) > 0.01
    np.testing.assert_allclose(jax.grad(loss)(params)["threshold"], expected, rtol=1e-4)


def test_the_penalty_on_firing_rates_has_the_slope_of_kl_times_that_of_the_rates():
    """Through the kernel to thresholds, and as much the other way to z."""
    target, weight = 0.3, 0.7
    settings = lane_settings("jumprelu", d_hidden=5, target_rate=target, rate_weight=weight, rate_bandwidth=EPS)
    z = np.asarray(jax.random.normal(jax.random.key(1), (200, 5)))
    theta = np.array([0.01, 0.1, 0.15, 0.3, 0.6], np.float32)
    step = Step(z[:, :3], z[:, :3])

    def penalty(theta, z):
        return firing.penalty(None, step, settings.model, z, theta)

    rates = np.mean(z > theta, axis=0)
    divergence = target * np.log(target / rates) + (1 - target) * np.log((1 - target) / (1 - rates))
    assert float(penalty(theta, z)) == pytest.approx(weight * np.sum(divergence), rel=1e-4)
    ends = [np.mean(z > theta + side * EPS / 2, axis=0) for side in (1, -1)]
    slope = weight * ((1 - target) / (1 - rates) - target / rates)
    assert np.all(ends[0] < ends[1]) and np.max(slope) > 0 > np.min(slope)
    to_theta, to_z = jax.grad(penalty, (0, 1))(jnp.asarray(theta), jnp.asarray(z))
    np.testing.assert_allclose(to_theta, slope * (ends[0] - ends[1]) / EPS, rtol=1e-4)
    near = np.abs(z - theta) < EPS / 2
    np.testing.assert_allclose(to_z, np.where(near, slope / EPS / len(z), 0), rtol=1e-4)


@pytest.mark.parametrize(("values", "rate"), [({}, 0.05), ({"target_l0": 6.0}, 6 / 64), ({"target_l0": 0.0}, 0.05)])
def test_beside_a_target_every_unit_has_the_same_share_of_it(values, rate):
    settings = lane_settings("jumprelu", d_hidden=64, target_rate=0.05, **values).model
    np.testing.assert_allclose(firing.rate(settings), rate, rtol=1e-6)
    memory = firing.start_memory(settings)
    np.testing.assert_allclose(memory.rates.average, np.full(64, rate), rtol=1e-6)

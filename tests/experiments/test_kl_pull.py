"""The law of how far rho is missed: its equation solved, and the pull as what the reconstruction's gradient says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce.kl_pull import Balance, balance_of
from sae_jax import DataConfig, decode, encode, lane_settings, load, sweep
from sae_jax.models.kl import kl_penalty

RHO = np.array([0.01, 0.1, 0.4])[None, :, None, None]
BETA = np.array([0.1, 3.0])[:, None, None, None]


@pytest.mark.parametrize("pull", [-0.05, 0.0, 1e-9, 0.03, 0.5])
def test_at_the_laws_activation_the_slopes_cancel(pull):
    balance = Balance(RHO, BETA, np.full((2, 3, 1, 1), 0.5), np.full((2, 3, 1, 1), pull))
    q = (RHO * (1 + balance.law[..., None]))[..., 0]
    assert np.all((q > 0) & (q < 1))
    rho, beta = RHO[..., 0], BETA[..., 0]
    np.testing.assert_allclose(beta * (q - rho), pull * q * (1 - q), rtol=1e-9, atol=1e-12)


def test_where_it_is_small_the_law_is_its_first_order_and_above_that_it_is_more():
    small, large = (
        Balance(RHO[:, :1], BETA[1:], np.zeros((1, 1, 1, 1)), np.full((1, 1, 1, 1), g)) for g in (1e-3, 1.0)
    )
    assert small.law == pytest.approx(small.first_order, rel=1e-3)
    assert large.law > 1.3 * large.first_order


def test_the_pull_is_what_the_gradient_of_the_reconstruction_says():
    data = load(DataConfig(samples=200))
    settings = {"d_hidden": 5, "steps": 50, "batch_size": 50, "reconstruction_loss": "half_squared_error"}
    lanes = sweep(data, rho=[0.05], beta=[0.1], **settings)
    balance = balance_of(lanes, data.train)
    lane = lanes.isel(rho=0, beta=0, seed=0)
    params = {name: jnp.asarray(lane[name].values) for name in lanes if lanes[name].attrs["kind"] == "parameter"}
    chosen = lane_settings(rho=0.05, beta=0.1, **settings)

    def error(bias):
        moved = params | {"encoder_bias": bias}
        restored = decode(moved, encode(moved, data.train, chosen), chosen)
        return 0.5 * jnp.mean(jnp.sum(jnp.square(restored - data.train), axis=1))

    def penalty(bias):
        codes = encode(params | {"encoder_bias": bias}, data.train, chosen)
        return kl_penalty(codes, jnp.mean(codes, axis=0), 0.05, 0.1)

    of_error, of_penalty = (jax.grad(part)(params["encoder_bias"]) for part in (error, penalty))
    q, pull = balance.activation[0, 0, 0], balance.pull[0, 0, 0]
    slope = 0.1 * (q - 0.05) / (q * (1 - q))
    np.testing.assert_allclose(of_error / of_penalty, -pull / slope, rtol=1e-3)

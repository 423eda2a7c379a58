"""Thresholds that a target L0 moves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sae_jax
from sae_jax.models import MODELS
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state, keys_of
from tests.transforms import STEP


def moved(**values: object) -> dict[str, np.ndarray]:
    """How far the parameters of a lane move in its first step, which is on negative samples, too."""
    settings = lane_settings("jumprelu", d_hidden=5, threshold_start=0.3, bandwidth=2.0, warmup=0.0, **values)
    keys = keys_of(jax.random.key(0))
    state = init_state(keys.init, settings, 3)
    after, _ = STEP(settings, state, jax.random.normal(keys.batches, (20, 3)))
    return {name: np.asarray(after.params[name] - state.params[name]) for name in state.params}


def test_thresholds_learn_faster_where_there_is_a_target() -> None:
    slow, fast = (moved(target_l0=1.0, threshold_rate=rate) for rate in (1.0, 4.0))
    assert np.all(slow["threshold"] > 0)
    np.testing.assert_allclose(fast["threshold"], 4 * slow["threshold"], rtol=1e-4)
    for name in slow.keys() - {"threshold"}:
        np.testing.assert_array_equal(fast[name], slow[name])
    for others in ({}, {"target_l0": 1.0, "penalty": "quadratic"}):
        one, other = (moved(threshold_rate=rate, **others) for rate in (1.0, 4.0))
        np.testing.assert_array_equal(one["threshold"], other["threshold"])


def test_rates_are_of_the_chosen_architecture() -> None:
    params = {"encoder_weight": jnp.zeros((3, 64))}
    several = lane_settings(["topk", "jumprelu"], target_l0=2.0)
    assert several.architecture.rates(params, several.model) == {}
    chosen = lane_settings(["jumprelu", "topk"], target_l0=jnp.float32(2.0), threshold_rate=jnp.float32(7.0))
    assert chosen.architecture.rates(params, chosen.model) == {"threshold": 7.0}
    rates = MODELS["jumprelu"].rates
    assert rates(params, lane_settings("jumprelu").model) == {}
    assert rates(params, MODELS["jumprelu"].Settings()) == {"threshold": 1.0}


@pytest.mark.parametrize(("inputs", "rate"), [(32, 5.0), (512, 20.0)])
def test_thresholds_keep_up_with_pre_activations_of_many_inputs(inputs: int, rate: float) -> None:
    settings = lane_settings("jumprelu", target_l0=2.0)
    params = {"encoder_weight": jnp.zeros((3, inputs))}
    assert settings.architecture.rates(params, settings.model) == {"threshold": rate}


def test_a_target_below_what_fires_is_reached() -> None:
    """3.2 features fire on a sample, so that thresholds must cut features off."""
    data = sae_jax.DataConfig(dataset="superposition")
    settings = {"d_hidden": 64, "batch_size": 128, "steps": 3000, "learning_rate": 3e-3, "final_learning_rate": 0.1}
    lane = sae_jax.sweep(data, "jumprelu", target_l0=2.0, progress=False, **settings)
    assert abs(float(lane["eval_l0"].squeeze()) / 2 - 1) < 0.05

"""The weight that is steered to a target L0."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import sae_jax
from sae_jax.models import MODELS, dictionary_memory
from sae_jax.training.config import lane_settings


@pytest.mark.parametrize(("name", "gain"), [("relu", 0.003), ("gated", 0.006)])
def test_weight_rises_by_a_share_of_the_error_and_by_its_change(name, gain):
    settings = lane_settings(name, d_hidden=8, target_l0=2.0, l1=0.5).model
    model = MODELS[name]
    state, logarithm, mean = model.memory(settings), np.log(0.5), 4.0
    seen = dictionary_memory.Seen(jnp.ones(8, bool), jnp.int32(4), jnp.float32(0), jnp.ones(8), jnp.float32(1))
    for l0 in (6.0, 3.0, 1.0, 0.0):
        state = model.update(state, seen._replace(l0=jnp.float32(l0)), settings)
        before, mean = mean, 0.9 * mean + 0.1 * l0
        logarithm += gain * np.log(mean / 2) + np.log(mean / before)
        assert float(state.steering.log_coefficient) == pytest.approx(logarithm, abs=1e-5)
    still = model.memory(dataclasses.replace(settings, target_l0=None))
    assert still.steering is None


@pytest.mark.usefixtures("optimised")
def test_held_out_patches_have_as_many_active_units_as_asked_for():
    data = sae_jax.load(sae_jax.DataConfig(normalize="unit"))
    settings = {"target_l0": 8.0, "d_hidden": 64, "steps": 1500, "seeds": 1, "progress": False}
    trained = sae_jax.sweep(data, ["jumprelu", "batch_topk"], **settings)
    np.testing.assert_allclose(trained["eval_l0"], 8, rtol=0.05)

"""Single precision in sweeps whatever JAX is set to; double precision in steps on parameters and samples of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import DataConfig, init_state, keys_of, lane_settings, sweep, train_step
from tests.watching import Watcher


def test_a_sweep_is_the_same_to_the_bit_under_double_precision_and_says_so():
    run = {"rho": [0.05, 0.1], "steps": 30, "seeds": 2, "batch_size": 32}
    plain, lines = sweep(DataConfig(dataset="digits"), **run), Watcher()
    with jax.enable_x64(True):
        double = sweep(DataConfig(dataset="digits"), **run, observers=[lines])
    for name, values in plain.data_vars.items():
        assert double[name].dtype == values.dtype and double[name].values.tobytes() == values.values.tobytes()
    [said] = [line for line in lines.lines if "precision" in line]
    assert said.startswith("warning: a sweep trains in single precision: got jax_enable_x64")


@pytest.mark.parametrize("whole_state", [True, False])
def test_steps_on_float64_parameters_are_in_double_precision(samples, whole_state):
    settings = lane_settings(d_hidden=5, rho=0.1, beta=0.3, steps=20, warmup=0.0)
    with jax.enable_x64(True):
        state = init_state(keys_of(jax.random.key(0)).init, settings, 16)
        double = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, state)
        state64 = double if whole_state else dataclasses.replace(state, params=double.params)
        step = jax.jit(train_step)
        for i in range(20):
            batch = samples[30 * i : 30 * (i + 1)]
            state, _ = step(settings, state, batch)
            state64, curves = step(settings, state64, batch.astype(np.float64))
        assert curves["loss"].dtype == np.float64
        for name, values in state64.params.items():
            assert values.dtype == np.float64 and not np.array_equal(values, state.params[name])
            np.testing.assert_allclose(values, state.params[name], rtol=1e-3, atol=1e-5)

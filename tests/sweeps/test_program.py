"""All lanes of one compiled program: compiled once, and none a burden to the others."""

import contextlib
import logging
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sae_jax import as_data, sweep

SETTINGS = {"d_hidden": 6, "batch_size": 32, "steps": 100}


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


@contextlib.contextmanager
def logged_lines():
    """The lines that JAX logs inside."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("jax").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("jax").removeHandler(handler)


def test_a_second_sweep_of_the_same_shapes_compiles_nothing(data, samples):
    def compiled_by(samples, **settings):
        with jax.log_compiles(), logged_lines() as lines:
            sweep(samples, seeds=2, **SETTINGS | {"steps": 7} | settings)
        return [line for line in lines if "Compiling" in line and "spread" in line]

    assert len(compiled_by(data)) == 3
    assert not compiled_by(as_data(samples[::-1].copy()), beta=0.5)


def test_lanes_of_one_bad_setting_do_not_hold_the_others_up(data):
    made = sweep(data, learning_rate=1e38, **SETTINGS)
    assert int(made["diverged_at"].squeeze()) >= 0
    assert np.isnan(made["loss"].squeeze()[-1]) and made["loss"].sizes["step"] == 100


def test_double_precision_mode_changes_nothing_of_the_types():
    code = (
        "import numpy as np; from sae_jax import *;"
        "settings = dict(d_hidden=3, batch_size=8, steps=4, patience=2);"
        "made = sweep(np.random.rand(50, 4), tied=[False, True], **settings);"
        "assert made['loss'].dtype == 'float32' and made['encoder_weight'].dtype == 'float32'"
    )
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_lane_that_its_last_step_has_taken_too_far_has_diverged(data):
    settings = {**SETTINGS, "steps": 1, "activation": "relu", "output": "linear", "optimizer": "sgd", "warmup": 0.0}
    found = sweep(data, learning_rate=[1e-3, 1e12], beta=0.0, **settings)
    measured = found["eval_explained_variance"].values.ravel()
    assert np.isfinite(measured).tolist() == [True, False]
    assert found["diverged_at"].values.ravel().tolist() == [-1, 1]

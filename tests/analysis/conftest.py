"""A small sweep over rho and beta, for the tests of figures."""

import pytest

from sae_jax import DataConfig, sweep


@pytest.fixture(scope="session")
def dataset():
    short = {"d_hidden": 5, "batch_size": 32, "steps": 20}
    return sweep(DataConfig(dataset="digits"), seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0], **short)

"""Runs whose pages are looked at."""

import pytest

from sae_jax import DataConfig, sweep
from sae_jax.data import SOURCES
from sae_jax.sweeps.merge import merge
from tests.analysis.kept_units import read_words

SHORT = {"batch_size": 32, "steps": 20}


@pytest.fixture(scope="session")
def digits():
    """Two rho, two beta, three seeds of lanes on digits."""
    return sweep(DataConfig(dataset="digits"), seeds=3, rho=[0.05, 0.1], beta=[0.5, 1.0], d_hidden=6, **SHORT)


@pytest.fixture(scope="session")
def three():
    """Three axes, one seed, of which one cell was trained by nobody and one diverged."""
    axes = {"rho": [0.05, 0.1], "beta": [0.5, 1.0], "ema_decay": [0.5, 0.9]}
    trained = sweep(DataConfig(dataset="digits"), seeds=1, d_hidden=4, **axes, **SHORT)
    diverged = trained["diverged_at"].copy()
    diverged[1, 1, 1] = 7
    trained = trained.assign(diverged_at=diverged)
    first = trained.isel(rho=[0])
    return merge(first.isel(beta=[0]), first.isel(beta=[1], ema_decay=[0]), trained.isel(rho=[1]))


@pytest.fixture(scope="session")
def words():
    """Lanes on samples that have names."""
    patched = pytest.MonkeyPatch()
    patched.setitem(SOURCES, "words", read_words)
    yield sweep(DataConfig(dataset="words", heldout=0.5), model="topk", k=[2, 3], d_hidden=8, seeds=2, **SHORT)
    patched.undo()

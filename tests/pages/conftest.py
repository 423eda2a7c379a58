"""Runs whose pages are looked at."""

import pytest

from sae_jax import DataConfig, sweep
from sae_jax.data import SOURCES
from tests.analysis.kept_units import read_words

SHORT = {"batch_size": 32, "steps": 20}


@pytest.fixture(scope="session")
def digits():
    """Two rho, two beta, three seeds of lanes on digits."""
    return sweep(DataConfig(dataset="digits"), seeds=3, rho=[0.05, 0.1], beta=[0.5, 1.0], d_hidden=6, **SHORT)


@pytest.fixture(scope="session")
def words():
    """Lanes on samples that have names."""
    patched = pytest.MonkeyPatch()
    patched.setitem(SOURCES, "words", read_words)
    yield sweep(DataConfig(dataset="words", heldout=0.5), model="topk", k=[2, 3], d_hidden=8, seeds=2, **SHORT)
    patched.undo()

"""Small sweeps for the tests of figures and of units."""

import pytest

from sae_jax import DataConfig, sweep
from sae_jax.data import SOURCES
from tests.analysis.kept_units import DIGITS, SHORT, kept_of, read_words


@pytest.fixture(scope="session")
def dataset():
    short = {"d_hidden": 5, "batch_size": 32, "steps": 20}
    return sweep(DataConfig(dataset="digits"), seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0], **short)


@pytest.fixture(scope="session")
def digits():
    """Lanes of two widths, three seeds each."""
    return sweep(DIGITS, model="topk", k=3, d_hidden=[5, 12], seeds=3, **SHORT)


@pytest.fixture(scope="session")
def kept(digits):
    """The same with what is kept of their units."""
    return kept_of(digits)


@pytest.fixture
def words(monkeypatch):
    """A sweep on samples with names, and what is kept of its units."""
    monkeypatch.setitem(SOURCES, "words", read_words)
    settings = {"model": "topk", "k": 2, "d_hidden": 8, "seeds": 1, **SHORT}
    return kept_of(sweep(DataConfig(dataset="words", heldout=0.5), **settings))

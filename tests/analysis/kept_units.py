"""Samples with names, and what the tests of units share."""

import numpy as np

from sae_jax import DataConfig
from sae_jax.analysis.options import UnitsConfig
from sae_jax.analysis.units import measure, with_units
from sae_jax.data import Rows

RNG = np.random.default_rng(0)
DIGITS = DataConfig(dataset="digits")
SHORT = {"batch_size": 32, "steps": 60}
WORDS = ["the", " of", "\n", "$x^2$", " \N{CJK UNIFIED IDEOGRAPH-6771}", "  "]
TOKENS = RNG.integers(len(WORDS), size=300)
X = (RNG.normal(size=(len(WORDS), 9))[TOKENS] + 0.1 * RNG.normal(size=(300, 9))).astype(np.float32)
OPTIONS = UnitsConfig(top=6, quantiles=(0.0, 0.5, 1.0), each=3, nearest=4)


def read_words(argument, config):
    """A source of samples that have names."""
    return Rows(X, "words", names=[WORDS[token] for token in TOKENS])


def kept_of(dataset, options=OPTIONS, point=None):
    """The Dataset with what is kept of its units."""
    return with_units(dataset, measure(dataset, options, point).variables)


def units_variables(dataset):
    """The names of what is kept of units."""
    return [name for name in dataset.data_vars if name.startswith("units_")]

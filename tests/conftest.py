"""Four CPU devices, no silent rank promotion, and shapes checked against the signatures' annotations."""

import atexit
import os
import shutil
import sys
import tempfile

import jax
import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# A float parameter admits an int, as everywhere in Python.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
# Before the first import of sae_jax: a call with arrays of the wrong shape raises. Modules that define state classes
# are left out, because JAX rebuilds those with leaves that are no arrays; settings, whose leaves may be anything, are
# no such classes.
CHECKED = (
    *("models.classic", "models.kl", "models.linear", "models.selection", "models.terms"),
    *("training.evaluation", "training.lbfgs", "training.optimizers", "data"),
)
install_import_hook([f"sae_jax.{module}" for module in CHECKED], "tests.conftest.typechecked")

# Compiling is most of the suite's time, and arithmetic is what it tests. Commands that run as processes of their own
# compile as they do for a user.
QUICK_COMPILER = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}".strip()
# Compiled once for all workers, and away from the user's own cache.
CACHE = os.environ.get("SAE_JAX_TEST_CACHE")
if CACHE is None:
    CACHE = os.environ["SAE_JAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="sae_jax_")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Close what a test has drawn: matplotlib warns of the twentieth figure, whichever test draws it."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def samples():
    """Correlated samples in [.1, .9], [600, 16]."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(600, 6)) @ rng.normal(size=(6, 16))
    return (0.5 + 0.4 * np.tanh(mixed / 2)).astype(np.float32)

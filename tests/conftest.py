"""Four CPU devices, no silent rank promotion, and shapes checked against the signatures' annotations."""

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
from pathlib import Path

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
    *("models.classic", "models.classic_codes", "models.classic_loss", "models.kl", "models.linear"),
    *("models.selection", "models.terms"),
    *("training.evaluation", "training.lbfgs", "training.optimizers", "training.truth", "data"),
)
install_import_hook([f"sae_jax.{module}" for module in CHECKED], "tests.conftest.typechecked")

# Compiling is most of the suite's time, and arithmetic is what it tests: XLA's older emitters make kernels in a third
# of the time of its newer ones, and one piece of a program takes less than 32; and next to nothing is optimised.
QUICK_COMPILER = (
    "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)
if QUICK_COMPILER not in os.environ.get("XLA_FLAGS", ""):  # Workers have it from the process that starts them.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}".strip()
# Tracing makes many small objects and few cycles of them: garbage is looked for where there is much that is new.
gc.set_threshold(20_000, 20, 20)
# What a shell runs in the background ignores Ctrl-C, and so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# As many threads for products of matrices as a worker has cores: those that wait for work would take others' time.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
LARGEST_CACHE = 4 * 2**30
# What a worker may hold of compiled programs from one module to the next: many of them share a machine's memory.
MOST_MEMORY = 3 * 2**29
# Everything is compiled once for all workers and their processes, and for later runs of the suite, away from the user's
# own cache: in pytest's, which --cache-clear empties.
CACHE = os.environ.get("SAE_JAX_TEST_CACHE")
if CACHE is None:
    from sae_jax.commands.environment import cache_folder  # After the import hook.

    kind = cache_folder()  # Its name is that of a kind of processor: machines may share a clone.
    place = Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "programs" / (kind.name if kind else "any")
    CACHE = os.environ["SAE_JAX_TEST_CACHE"] = str(place)
    # Programs of older sources are never asked for again.
    if place.exists() and sum(entry.stat().st_size for entry in os.scandir(place)) > LARGEST_CACHE:
        shutil.rmtree(place)
# Processes that tests start have these too.
SHARED = {
    "jax_disable_most_optimizations": True,
    # Where in the source an operation comes from is written beside each, which takes a tenth of what a program takes.
    "jax_traceback_in_locations_limit": 0,
    "jax_compilation_cache_dir": CACHE,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in SHARED.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than cores, unless xdist's variable says how many: some tests wait for processes and clocks."""
    from sae_jax.sweeps.devices import cpu_cores  # After the import hook.

    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else cpu_cores() + 1


def pytest_collection_finish():
    """Keep what is imported out of every search for garbage."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Close what a test has drawn: matplotlib warns of the twentieth figure, whichever test draws it."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@contextlib.contextmanager
def optimising():
    """Optimise programs, and those of processes: for trainings that take longer than that."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "False")
        jax.config.update("jax_disable_most_optimizations", False)
        yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def optimised():
    """Programs are optimised in a test."""
    with optimising():
        yield


def as_for_a_user(environment):
    """Variables of a process that compiles as it does for a user."""
    compiler = environment["XLA_FLAGS"].replace(QUICK_COMPILER, "").strip()
    return environment | {"XLA_FLAGS": compiler, "JAX_DISABLE_MOST_OPTIMIZATIONS": "False"}


@pytest.fixture(autouse=True, scope="module")
def programs_fit_into_the_process():
    """Some hundred tests compile more programs than a process and the memory of a machine have room for."""
    yield
    from sae_jax.sweeps.devices import release_programs  # After the import hook.

    release_programs()
    with contextlib.suppress(OSError, AttributeError):  # Other systems have no such file, or no such function.
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        if pages * os.sysconf("SC_PAGE_SIZE") > MOST_MEMORY:
            jax.clear_caches()
            # Otherwise what is free stays the process's.
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def samples():
    """Correlated samples in [.1, .9], [600, 16]."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(600, 6)) @ rng.normal(size=(6, 16))
    return (0.5 + 0.4 * np.tanh(mixed / 2)).astype(np.float32)

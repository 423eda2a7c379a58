"""Whatever stands on a command line or in a file, it is read or refused in one line."""

import contextlib
import io
import math
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.benchmark.__main__ import Output
from experiments.reproduce import __main__ as reproduce
from sae_jax import CLASSIC, MODELS, DataConfig, UserError, load, sweep
from sae_jax.analysis.lanes import trained
from sae_jax.analysis.options import UnitsConfig
from sae_jax.analysis.tasks import TaskConfig
from sae_jax.commands import evaluate, units
from sae_jax.commands.cluster import Launch
from sae_jax.commands.flags import checked_settings, option, options_of, parse, read
from sae_jax.commands.run_config import RunConfig
from sae_jax.settings import check, flag, settings_of
from sae_jax.storage import results
from sae_jax.sweeps.grid import fields_of
from sae_jax.sweeps.reading import grid_of
from tests.bad_files import GOOD, labelled, npy, zipped

TRAINING = fields_of(CLASSIC)
RUNNING = {**settings_of(RunConfig), **settings_of(Launch)}
CHOICES = [word for field in TRAINING.values() for word in field.metadata["range"].choices]
TASK_WORDS = ("probe", "anomaly", "stacked", "gaussian", "masking")
FLAGS = [flag(name) for name in (*TRAINING, *RUNNING, "seeds", "seed")]
NUMBERS = st.one_of(st.integers(), st.floats(), st.floats(0, 1), st.integers(0, 9)).map(str)
TEXT = st.text(max_size=6)
VALUES = st.one_of(NUMBERS, st.sampled_from([*CHOICES, "True", "false", "patches", "digits", "", "-", "--", "="]), TEXT)
OPTIONS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(["--help", "-h", "--tyro-print-completion", "--tyro-write-completion"]),
    TEXT,
)
PAIRS = st.tuples(OPTIONS, st.lists(VALUES, max_size=2)).map(lambda pair: [pair[0], *pair[1]])
SENSIBLE = st.tuples(st.sampled_from(FLAGS), st.lists(NUMBERS | st.sampled_from(CHOICES), min_size=1, max_size=2)).map(
    lambda pair: [pair[0], *map(str, pair[1])]
)
LINES = st.lists(PAIRS | SENSIBLE, max_size=3).map(lambda pairs: [word for pair in pairs for word in pair])


def quick(examples):
    """The same examples every time, and no files of them."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=health)


def or_refused(action):
    """What an action returns; None where it refused its input in one line, or where help was all that was asked for."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return action()
    except UserError as error:
        assert str(error).isprintable() and str(error)
    except SystemExit as stopped:
        assert stopped.code in (0, None)
    return None


@quick(100)
@given(words=LINES, several=st.booleans())
def test_every_command_line_of_a_training_is_read_or_refused(words, several):
    found = or_refused(lambda: parse(words, "x", "", {}, several))
    if found is None:
        return
    run, values, seeds = found
    assert isinstance(run, RunConfig) and values.pop("model") in MODELS and set(values) <= set(TRAINING)
    assert several or isinstance(seeds, tuple)
    named = seeds if isinstance(seeds, tuple) else (seeds,)
    assert named and all(type(seed) is int for seed in named) and (several or len(named) == 1)
    for name, value in values.items():
        given_values, field = value if isinstance(value, tuple) else (value,), TRAINING[name]
        assert several or not isinstance(value, tuple)
        for one in given_values:
            assert type(one) is type(field.default) and one in field.metadata["range"]
            assert check(field, one) == one and check(field, str(one)) == one
            assert not isinstance(one, float) or math.isfinite(np.float32(one))


@pytest.mark.parametrize(
    "owners",
    [(evaluate.Where, TaskConfig), (units.Which, UnitsConfig), (reproduce.Arguments,), (Output,)],
    ids=["evaluate", "units", "reproduce", "benchmark"],
)
@quick(40)
@given(data=st.data())
def test_every_command_line_of_the_others_is_read_or_refused(owners, data):
    flags = [flag(name) for owner in owners for name in settings_of(owner)]
    choices = st.sampled_from([*TASK_WORDS, *reproduce.NAMES])
    pairs = st.tuples(st.sampled_from(flags) | OPTIONS, st.lists(VALUES | choices, max_size=2))
    words = data.draw(st.lists(VALUES | choices, max_size=1)) + [
        word for name, values in data.draw(st.lists(pairs, max_size=3)) for word in (name, *values)
    ]
    groups = {owner.__name__: options_of(owner) for owner in owners}
    groups["first"] = [option("run", ("",), "", "RUN", False, positional=True)]
    read_words = or_refused(lambda: read(words, "x", "", groups))
    for owner in owners if read_words else ():
        found = or_refused(lambda owner=owner: checked_settings(owner, read_words))
        for name, field in settings_of(owner).items() if found else ():
            value = getattr(found, name)
            assert type(value) is type(field.default)
            assert all(one in field.metadata["range"] for one in (value if isinstance(value, tuple) else (value,)))


WHOLE = {
    "npy": npy(GOOD),
    "npz": zipped(("a.npy", npy(GOOD)), method=zipfile.ZIP_STORED),
    "deflated": zipped(("a.npy", npy(GOOD))),
    "labels": labelled(np.arange(40) % 3),
    "integers": npy((GOOD * 9).astype(np.int16)),
}


@st.composite
def damaged(draw, content):
    """The content with bits flipped, anywhere or near its beginning, where headers are; or cut short, or longer."""
    content, rng = bytearray(content), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def place():
        return int(rng.integers(min(len(content), draw(st.sampled_from([160, len(content)])))))

    how = draw(st.sampled_from(["flipped", "flipped", "flipped", "cut", "longer"]))
    if how == "flipped":
        for _ in range(draw(st.integers(1, 3))):
            content[place()] ^= 1 << int(rng.integers(8))
    elif how == "longer":
        start = place()
        content[start:start] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content[: place()] if how == "cut" else content)


def samples_of(path, content):
    """Data of a file: finite, float32 and two-dimensional; None where it was refused."""
    path.write_bytes(content)
    data = or_refused(lambda: load(DataConfig(dataset=f"array:{path}")))
    if data is not None:
        for part in (data.train, data.heldout):
            assert part.dtype == np.float32 and part.ndim == 2 and part.size and np.isfinite(part).all()
        assert data.train.shape[1] == data.heldout.shape[1]
        assert data.train_labels is None or len(data.train_labels) == len(data.train)
    return data


@quick(60)
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"PK", b"\x80\x04"]),
)
def test_any_bytes_are_refused_as_samples(content, start, tmp_path):
    assert samples_of(tmp_path / "any.npy", start + content) is None


@quick(100)
@given(data=st.data(), kind=st.sampled_from(sorted(WHOLE)))
def test_damaged_samples_are_finite_numbers_or_refused(data, kind, tmp_path):
    assert samples_of(tmp_path / "whole.npz", WHOLE[kind]) is not None
    samples_of(tmp_path / "damaged.npz", data.draw(damaged(WHOLE[kind])))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, the Dataset in it, and the samples that it was trained on."""
    folder = tmp_path_factory.mktemp("run")
    data, short = DataConfig(dataset="digits", samples=100), {"steps": 1, "d_hidden": 3, "batch_size": 20}
    results.save(sweep(data, seeds=2, rho=[0.05, 0.1], activation=["sigmoid", "relu"], **short), folder)
    return folder, results.load(folder), load(data)


@pytest.mark.parametrize("name", ["results.nc", "params.safetensors"])
@quick(50)
@given(data=st.data())
def test_a_damaged_run_is_what_it_was_in_shape_or_refused(name, data, run, tmp_path):
    folder, whole, samples = run
    for file in ("results.nc", "params.safetensors"):
        content = (folder / file).read_bytes()
        (tmp_path / file).write_bytes(data.draw(damaged(content)) if file == name else content)
    loaded = or_refused(lambda: results.load(tmp_path))
    if loaded is not None:
        shared = loaded.data_vars.keys() & whole.data_vars.keys()
        assert {key: loaded[key].dims for key in shared} == {key: whole[key].dims for key in shared}
        or_refused(lambda: grid_of(loaded))
        or_refused(lambda: trained(loaded, samples))

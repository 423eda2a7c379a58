"""Chunks that are interrupted, resumed, or too large for memory."""

import itertools

import jax
import numpy as np
import pytest
import xarray as xr

from sae_jax import UserError, as_data
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps import chunks
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.recovery import Interrupted, saving
from sae_jax.sweeps.study import packing
from sae_jax.sweeps.sweep import train
from sae_jax.training import lane

LOGGED_POINTS = 60  # At most: every state of theirs is saved.
SETTINGS = {"d_hidden": 6, "batch_size": 32, "steps": 66}  # A point is logged every two steps.
ENGINE = Engine(devices=2, lanes_per_chunk=8)
# Every state that they carry: dead units, a steered weight, running thresholds and firing rates.
DICTIONARIES = {
    "model": ["relu", "batch_topk", "jumprelu"],
    "target_l0": [2.0, 3.0],
    "dead_units": "auxk",
    "dead_after": 64,
    "target_rate": 0.2,
    "steps": 36,
}
# Codes as lists, once k has fallen.
LISTS = {"model": "batch_topk", "d_hidden": 200, "k": [2.0, 4.5], "k_warmup": 0.5, "dead_units": "auxk", "steps": 36}
GRID = {"rho": [0.05, 0.1, 0.2], "beta": [0.5, 2.0]}
TRAININGS = {
    "adam": ({"snapshots": 5}, ENGINE),
    "sgd": ({"optimizer": "sgd", "corruption": "gaussian"}, Engine(devices=1, lanes_per_chunk=8)),
    "lbfgs": ({"optimizer": "lbfgs", "estimator": "batch", "steps": 25}, Engine(devices=2)),
    "patience": ({"patience": 2, "steps": 180}, Engine(devices=2)),
    "data parallel": ({"tied": True}, Engine(devices=4, data_parallel=2, lanes_per_chunk=6)),
    "unit parallel": ({"estimator": "ema"}, Engine(devices=4, unit_parallel=2, lanes_per_chunk=6)),
    "dictionaries": (DICTIONARIES, Engine(devices=2, lanes_per_chunk=4)),
    "both": (DICTIONARIES, Engine(devices=4, data_parallel=2, unit_parallel=2, lanes_per_chunk=2)),
    "lists": (LISTS, Engine(devices=2, cells_per_block=1, lanes_per_chunk=2)),
}


@pytest.fixture(scope="module", autouse=True)
def few_points():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lane, "LOGGED_POINTS", LOGGED_POINTS)
        yield


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


class Lines(Observer):
    """Keeps the lines that it receives."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def studied(data, engine=ENGINE, **settings):
    every = SETTINGS | (settings or GRID)
    if every.get("optimizer") == "lbfgs":
        del every["batch_size"]
    return prepare(data, seeds=2, engine=engine, observer=Observer(), **every)


def trained(study, folder=None, observer=None, asked=lambda: False):
    if folder is None:
        return train(study, observer or Observer(), in_memory())
    with saving(folder, every=0.0, asked_to_end=asked) as recovery:
        return train(study, observer or Observer(), in_memory(), recovery)


@pytest.fixture(scope="module")
def whole(data):
    """The study of the defaults, trained in one life."""
    return trained(studied(data))


def interrupted_often(study, folder, most):
    """The study trained in many lives, each of which ends after at most so many calls, and how many there were."""
    rng = np.random.default_rng(0)
    for lives in range(1, 200):
        left = int(rng.integers(0, most))

        def asked():
            nonlocal left
            left -= 1
            return left < 0

        try:
            return trained(study, folder, asked=asked), lives
        except Interrupted:
            pass
    raise AssertionError("it never ended")


@pytest.mark.parametrize(("changes", "engine"), TRAININGS.values(), ids=TRAININGS)
def test_a_training_that_is_interrupted_anywhere_finds_the_same_to_the_bit(changes, engine, data, tmp_path):
    study = studied(data, engine, **({} if "model" in changes else GRID), **changes)
    whole = trained(study)
    resumed, lives = interrupted_often(study, tmp_path, 8 if "estimator" in changes else 15)
    assert lives > 3
    xr.testing.assert_identical(resumed, whole)
    assert all(resumed[name].values.tobytes() == whole[name].values.tobytes() for name in whole.data_vars)


def test_programs_and_lanes_that_diverge_survive_interruptions_too(data, tmp_path):
    study = studied(data, d_hidden=[4, 6], steps=[20, 75], learning_rate=[0.01, 1e38])
    whole = trained(study)
    assert np.all(whole["diverged_at"].sel(learning_rate=1e38) >= 0)
    resumed, lives = interrupted_often(study, tmp_path, 15)
    assert lives > 3
    xr.testing.assert_identical(resumed, whole)


def test_after_a_broken_state_the_one_before_it_leads_to_the_same_bits(whole, data, tmp_path):
    study, calls = studied(data), itertools.count()
    # Late enough for two states of the first chunk.
    with pytest.raises(Interrupted):
        trained(study, tmp_path, asked=lambda: next(calls) > 20)
    states = sorted((tmp_path / "states").iterdir())
    assert len(states) == 2
    next(path for path in states[-1].rglob("*") if path.is_file()).write_bytes(b"")
    lines = []
    with saving(tmp_path, say=lines.append) as recovery:
        resumed = train(study, Observer(), in_memory(), recovery)
    assert len(lines) == 1 and str(states[-1]) in lines[0]
    xr.testing.assert_identical(resumed, whole)


def test_a_finished_training_is_not_done_again(data, tmp_path, monkeypatch):
    study = studied(data)
    whole = trained(study, tmp_path)
    monkeypatch.setattr(chunks, "train_chunk", None)
    xr.testing.assert_identical(trained(study, tmp_path), whole)


def test_a_checkpoint_of_other_lanes_is_refused(data, tmp_path):
    trained(studied(data), tmp_path)
    with pytest.raises(UserError, match="must hold the lanes of this run"):
        trained(studied(data, **GRID, d_hidden=7), tmp_path)


def out_of_memory(most):
    """train_chunk as it would be on a device that holds so many lanes."""

    def train(lanes, plan, *others):
        if plan.blocks_per_group * plan.cells_per_block > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.\nmore")
        return chunks_train(lanes, plan, *others)

    return train


chunks_train = chunks.train_chunk


@pytest.fixture(scope="module")
def in_one_chunk(data):
    return trained(studied(data, Engine(devices=2)))


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("in_folder", [False, True])
def test_without_memory_for_a_chunk_chunks_are_halved(most, in_folder, in_one_chunk, data, tmp_path, monkeypatch):
    study = studied(data, Engine(devices=2))
    monkeypatch.setattr(chunks, "train_chunk", out_of_memory(most))
    heard = Lines()
    found = trained(study, tmp_path if in_folder else None, heard)
    for name, values in in_one_chunk.data_vars.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    warnings = [line for line in heard.lines if line.startswith("warning")]
    assert warnings and all(
        "Out of memory allocating 12345 bytes.; going on with chunks of half" in w for w in warnings
    )
    assert packing(study)[0][0] * packing(study)[0][1] > most
    if in_folder:
        monkeypatch.setattr(chunks, "train_chunk", None)
        xr.testing.assert_identical(trained(study, tmp_path), found)


def test_without_memory_for_a_lane_it_is_refused(data, monkeypatch):
    monkeypatch.setattr(chunks, "train_chunk", out_of_memory(0))
    with pytest.raises(
        UserError, match=r"a lane per device must fit in memory: got .* MiB a lane, and RESOURCE_EXHAUSTED"
    ):
        trained(studied(data))


def test_other_errors_of_the_runtime_are_not_taken_for_it(data, monkeypatch):
    def wrong(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(chunks, "train_chunk", wrong)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        trained(studied(data))


def test_a_state_is_a_copy_that_training_does_not_change(data, tmp_path, monkeypatch):
    seen = []

    def remember(recovery, folder, position, arrays):
        seen.append((arrays, {name: values.copy() for name, values in arrays.items()}))

    monkeypatch.setattr("sae_jax.sweeps.recovery._write_state", remember)
    trained(studied(data), tmp_path)
    assert len(seen) > 10
    for arrays, then in seen:
        jax.tree.map(np.testing.assert_array_equal, arrays, then)
    assert any(".opt_state" in name for name in seen[0][0]) and any(".memory" in name for name in seen[0][0])

"""The memory of a lane, by the compiler's own account, and the blocks that follow from it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sae_jax import as_data, init_state, lane_settings
from sae_jax.models import MODELS
from sae_jax.sweeps import program
from sae_jax.sweeps.devices import copied_bytes, lane_mesh, place
from sae_jax.sweeps.grid import make_grid
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.program import plan_lanes
from sae_jax.training.lane import init_lane

MIB = 2**20
ROOT = Path(__file__).parents[2]


def plan(d_in, lanes=1, devices=1, samples=2000, data_parallel=1, **settings):
    """The plan of `lanes` lanes, four seeds of every cell at most; their data are zeros, which no plan reads."""
    data, seeds = as_data(np.zeros((samples, d_in), np.float32)), min(4, lanes)
    rho = np.linspace(0.02, 0.2, lanes // seeds).tolist()
    model = settings.pop("model", "classic")
    axes = {"rho": rho, "output": "linear"} if model == "classic" else {}
    grid = make_grid(model, data.config, seeds, axes | settings)
    [(_, cells, _)] = grid.programs()
    return plan_lanes(cells, data, len(grid.seeds), jax.devices()[:devices], Engine(data_parallel=data_parallel))


def lane_bytes(d_in=64, **settings):
    return plan(d_in, **settings).lane_bytes


def state_bytes(d_in=64, **settings):
    """Bytes of a lane's state: parameters, optimizer, running mean, early stopping."""
    lane = jax.eval_shape(lambda: init_lane(jax.random.key(0), lane_settings(**settings), d_in))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(lane))


@pytest.mark.parametrize(
    ("shape", "lanes", "cells_per_block"),
    [
        ((64, 25, 256), (1, 16, 256, 1024), (1, 4, 32, 32)),
        ((64, 256, 1024), (8, 64), (2, 2)),
        ((784, 256, 256), (1, 8, 64), (1, 1, 1)),
        ((784, 1000, 100), (8,), (1,)),
        ((768, 6144, 2048), (1,), (1,)),
    ],
    ids=lambda value: "x".join(map(str, value)),
)
@pytest.mark.parametrize("devices", [1, 2])
def test_blocks_of_the_benchmarks_shapes(shape, lanes, cells_per_block, devices):
    d_in, d_hidden, batch_size = shape
    plans = [
        plan(d_in, one, min(devices, one), d_hidden=d_hidden, batch_size=batch_size, samples=5000) for one in lanes
    ]
    assert tuple(one.cells_per_block for one in plans) == cells_per_block
    assert all(one.chunks == 1 for one in plans)


def test_the_compiler_is_asked_where_lanes_may_not_fit_and_nowhere_else(monkeypatch):
    asked = []
    monkeypatch.setattr(program, "_working_memory", lambda *shapes: asked.append(shapes) or (7 * MIB, 5 * MIB))
    small = plan(64, lanes=8, d_hidden=25, batch_size=256)
    assert not asked and 8 * small.lane_bytes < program.SMALL_BYTES
    large = plan(64, lanes=128, d_hidden=25, batch_size=256)
    assert len(asked) == 1 and large.lane_bytes == large.state_bytes + 7 * MIB
    # How many cells share a block depends on the estimate alone, not on whether the compiler was asked.
    assert plan(64, lanes=64, d_hidden=25).cells_per_block == 16 and large.cells_per_block == 32


HUNGRY = [("matching_pursuit", {"k": 40}), ("relu", {"prefixes": "drawn:40"}), ("matryoshka", {"dead_units": "auxk"})]


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in sorted(MODELS)), *HUNGRY])
def test_the_estimate_is_not_far_from_the_compilers_account(name, more, monkeypatch):
    settings = {"d_hidden": 64, "batch_size": 256, "model": name} | more
    estimate = plan(32, **settings).lane_bytes
    monkeypatch.setattr(program, "SMALL_BYTES", 0)
    account = plan(32, **settings).lane_bytes
    assert account != estimate and 0.4 < account / estimate < 2


def test_memory_grows_with_the_batch_by_the_codes_and_not_by_many_times_as_much():
    small, large = (lane_bytes(d_hidden=512, batch_size=batch) for batch in (256, 1024))
    codes = 4 * 768 * 512
    assert codes <= large - small <= 5 * codes
    # A device holds its share of a batch that is split.
    assert plan(64, devices=2, data_parallel=2, d_hidden=512, batch_size=512).lane_bytes == small


@pytest.mark.parametrize(
    ("settings", "gradients"),
    # Under early stopping the state before the steps is held until it is known whether the lane goes on.
    [({}, 2.5), ({"tied": True}, 2.5), ({"optimizer": "sgd"}, 2.5), ({"patience": 3}, 4.5)],
    ids=str,
)
def test_the_state_is_counted_once_beside_gradients(settings, gradients):
    settings = {"d_hidden": 1024, "batch_size": 1} | settings
    state, needed = state_bytes(256, **settings), lane_bytes(256, **settings)
    params = jax.eval_shape(lambda: init_state(jax.random.key(0), lane_settings(**settings), 256).params)
    gradient = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    assert state < needed < state + gradients * gradient


def test_memory_grows_with_the_width_in_proportion():
    narrow, wide = (lane_bytes(256, d_hidden=width, batch_size=64) for width in (256, 1024))
    assert wide / narrow == pytest.approx(4, rel=0.15)


def test_what_measuring_needs_is_set_aside(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**32}))
    few, many = (plan(64, samples=samples, d_hidden=128, batch_size=16) for samples in (1000, 11_000))
    # A tenth of the samples is encoded.
    assert few.device_bytes - many.device_bytes >= 4 * 1000 * 128 and many.device_bytes > 2**31 - 64 * MIB
    assert many.data_bytes == 4 * 11_000 * 64 and "and 3 MiB of samples" in str(many)


def test_a_cpu_device_reads_the_samples_where_they_lie_and_others_need_a_copy():
    samples = as_data(np.zeros((1000, 16)))
    mesh = lane_mesh(jax.devices()[:2])
    shards = place(samples.train, mesh, split=False).addressable_shards
    assert {shard.data.unsafe_buffer_pointer() for shard in shards} == {samples.train.ctypes.data}
    assert copied_bytes((samples.train, samples.heldout), jax.devices()) == 0
    elsewhere = [SimpleNamespace(platform="gpu")]
    assert copied_bytes((samples.train, samples.heldout), elsewhere) == 4 * 1000 * 16
    assert copied_bytes(samples.train.ravel()[1:], jax.devices()) == samples.train.nbytes - 4


MEASURE = """
import pathlib, re, sys
import numpy as np, sae_jax
status = lambda name: int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 2**10
sae_jax.sweep(np.random.default_rng(0).uniform(size=(500, 8)), steps=2)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak is counted from here.
before = status("VmRSS")
config = sae_jax.DataConfig(dataset=f"array:{sys.argv[1]}", normalize=sys.argv[2])
sae_jax.sweep(config, d_hidden=4, steps=2, output="linear")
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize(("dtype", "normalize"), [("f4", "none"), ("f8", "standardize")])
def test_reading_and_training_take_no_more_than_two_and_a_half_times_the_samples(tmp_path, dtype, normalize):
    values = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype, (600_000, 100))
    for rows in range(0, len(values), 60_000):
        values[rows : rows + 60_000] = np.random.default_rng(rows).uniform(size=(60_000, 100))
    del values
    words = [sys.executable, "-c", MEASURE, tmp_path / "x.npy", normalize]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert 4 * 6e7 / MIB * 0.9 < float(done.stdout) < 2.5 * 4 * 6e7 / MIB

"""Devices, and functions of a lane over all lanes."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.settings import UserError
from sae_jax.sweeps import devices
from sae_jax.sweeps.devices import choose_devices, lane_mesh, place, place_keys, release_programs, reserve_cpu_devices
from sae_jax.sweeps.mapping import map_lanes, over_lanes


def test_lanes_are_mapped_in_order_and_the_last_device_may_be_short():
    own = {"a": np.arange(5.0), "b": np.arange(10.0).reshape(5, 2)}
    found = map_lanes(lambda lane, x: (lane["a"] * x, lane["b"].sum()), jax.devices()[:3], (np.float32(2),), own)
    np.testing.assert_array_equal(found[0], 2 * own["a"])
    np.testing.assert_array_equal(found[1], own["b"].sum(axis=1))


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"got 99 of 4 cpu devices"):
        choose_devices(99)
    assert len(choose_devices(1)) == 1
    assert len(choose_devices(3)) == 3


def test_more_devices_than_jax_makes_in_a_sensible_time_are_refused_before_it_makes_any():
    before = jax.config.values["jax_num_cpu_devices"]
    for make in (choose_devices, reserve_cpu_devices):
        with pytest.raises(UserError, match=r"^devices must be at most \d+: got 20000; 0 is all, on a CPU one per "):
            make(20000)
    assert jax.config.values["jax_num_cpu_devices"] == before


@pytest.mark.parametrize("most", [10, 10**9])
def test_programs_are_released_before_a_process_runs_out_of_memory_mappings(most, tmp_path, monkeypatch):
    mappings = tmp_path / "max_map_count"
    mappings.write_text(f"{most}\n")
    monkeypatch.setattr(devices, "MOST_MAPPINGS", mappings)
    monkeypatch.setattr(devices, "MAPPINGS", tmp_path / "maps")
    (tmp_path / "maps").write_text("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/python\n" * 6)
    function = jax.jit(lambda x: x + 1)
    function(1.0)
    release_programs()
    assert function._cache_size() == (0 if most == 10 else 1)
    assert function(1.0) == 2


SWEEP = "import sae_jax; sae_jax.sweep(sae_jax.DataConfig(dataset='digits'), steps=2, d_hidden=3, {})"
FIRST = "import jax; jax.numpy.zeros(3) + 1"
CORES = "import os; os.sched_getaffinity = lambda process: {0, 1, 2}"


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ([CORES, FIRST, SWEEP.format("")], True),
        ([CORES, FIRST, SWEEP.format("devices=1")], False),  # It was asked for.
        ([CORES, "import jax", "MENDED", FIRST, SWEEP.format("")], False),
    ],
    ids=["late", "asked", "mended"],
)
def test_cores_that_are_idle_since_jax_computed_before_are_warned_of_with_what_mends_it(lines, warned, tmp_path):
    mended = 'jax.config.update("jax_num_cpu_devices", 3)'
    code = "\n".join(mended if line == "MENDED" else line for line in lines)
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [warning] = [line for line in done.stderr.splitlines() if "CPU devices" in line] or [""]
    assert bool(warning) == warned
    if warned:
        assert "SweepWarning: lanes are trained on 1 of 3 possible CPU devices" in warning and mended in warning


@pytest.mark.parametrize("blocks_in_turn", [False, True])
@pytest.mark.parametrize("cells", [1, 3])
def test_lanes_that_are_changed_in_place_become_the_same_in_half_the_memory(cells, blocks_in_turn):
    def step(factor, state, add, key):
        state = jax.lax.fori_loop(0, 3, lambda _, one: jnp.sin(factor * one) + add, state)
        return state + jax.random.uniform(key), jnp.sum(state)

    mesh = lane_mesh(jax.devices()[:2])
    state = np.random.default_rng(0).normal(size=(8, cells, 64, 64)).astype(np.float32)
    own = place((state, np.arange(8.0 * cells, dtype=np.float32).reshape(8, cells)), mesh, split=True)
    arguments = jnp.float32(0.9), *own, place_keys(np.arange(8, dtype=np.uint32), mesh)
    programs = [over_lanes(step, mesh, 1, blocks_in_turn, in_place=in_place) for in_place in (False, True)]
    memory = [program.lower(*arguments).compile().memory_analysis() for program in programs]
    expected, found = (jax.tree.map(np.array, program(*arguments)) for program in programs)
    jax.tree.map(np.testing.assert_array_equal, expected, found)
    of_all = state.nbytes / 2
    assert memory[0].alias_size_in_bytes == 0 and memory[1].alias_size_in_bytes == of_all
    if blocks_in_turn:
        # A block and its result, not all blocks a second time.
        assert memory[1].temp_size_in_bytes < of_all

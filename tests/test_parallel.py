"""Laying lanes out over devices."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sae_jax.parallel import choose_devices, layout, make_plan, map_lanes, memory_budget
from sae_jax.settings import UserError


def plan(cells, seeds, devices=2, lanes_per_chunk=None, budget=10**9):
    return make_plan(cells, seeds, jax.devices()[:devices], 1000, budget, lanes_per_chunk)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
@pytest.mark.parametrize("lanes_per_chunk", [None, 1, 5, 40])
@pytest.mark.parametrize(("cells", "seeds"), [(1, 1), (1, 7), (9, 4), (9, 3), (10, 1), (100, 3), (7, 5)])
def test_every_lane_stands_exactly_once_and_no_chunk_is_too_large(cells, seeds, devices, lanes_per_chunk):
    chosen = plan(cells, seeds, devices, lanes_per_chunk)
    cell_of, seed_of = layout(chosen)
    assert cell_of.shape == (chosen.chunks, chosen.blocks_per_chunk, chosen.cells_per_block)
    pairs = [
        (cell, seed)
        for block, seed in zip(cell_of.reshape(-1, chosen.cells_per_block), seed_of.ravel(), strict=True)
        for cell in block
        if cell >= 0
    ]
    assert sorted(pairs) == [(cell, seed) for cell in range(cells) for seed in range(seeds)]
    if lanes_per_chunk:
        assert chosen.blocks_per_chunk * chosen.cells_per_block <= max(lanes_per_chunk, devices)


@pytest.mark.parametrize(("cells", "seeds"), [(9, 4), (9, 3), (16, 1), (25, 2), (1, 8), (64, 16)])
def test_at_most_a_fifth_of_the_work_is_filling(cells, seeds):
    chosen = plan(cells, seeds)
    assert chosen.chunks * chosen.blocks_per_chunk * chosen.cells_per_block <= 1.2 * cells * seeds


def test_memory_bounds_a_chunk():
    chosen = plan(100, 10, devices=2, budget=50_000)
    assert chosen.blocks_per_chunk * chosen.cells_per_block * 1000 <= 50_000
    assert chosen.chunks >= 20


def test_a_block_may_be_held_to_one_cell():
    chosen = make_plan(9, 4, jax.devices()[:2], 1000, 10**9, widest_block=1)
    assert chosen.cells_per_block == 1 and chosen.blocks_per_chunk == 36


def test_lanes_are_mapped_in_order_and_the_last_device_may_be_short():
    own = {"a": np.arange(5.0), "b": np.arange(10.0).reshape(5, 2)}
    found = map_lanes(lambda lane, x: (lane["a"] * x, lane["b"].sum()), jax.devices()[:3], (np.float32(2),), own)
    np.testing.assert_array_equal(found[0], 2 * own["a"])
    np.testing.assert_array_equal(found[1], own["b"].sum(axis=1))


def test_a_lane_that_does_not_fit_is_refused_with_the_arithmetic():
    with pytest.raises(UserError, match="a lane per device must fit in memory: 2 x"):
        plan(1, 1, budget=1500)


def test_the_budget_is_a_share_of_memory_less_the_data_of_every_device(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert memory_budget(jax.devices()[:2], 0) == 500
    assert memory_budget(jax.devices()[:2], 100) == 300


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"got 99 of 4 cpu devices"):
        choose_devices(99)
    assert len(choose_devices(1)) == 1
    assert len(choose_devices(3)) == 3


def test_the_plan_says_what_it_is():
    text = str(plan(9, 4, lanes_per_chunk=18))
    assert text.startswith("36 lanes (9 cells x 4 seeds) on 2 CPU devices: 2 chunks of 2 blocks of 9 cells in turn")


def test_a_wide_grid_is_planned_at_once():
    chosen = plan(100_000, 3, devices=4, budget=10**12)
    assert np.prod(layout(chosen)[0].shape) < 1.01 * 300_000

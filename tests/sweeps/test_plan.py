"""Packing lanes into blocks and chunks."""

import itertools
from types import SimpleNamespace

import jax
import pytest

from sae_jax.settings import UserError
from sae_jax.sweeps.plan import Engine, chunk_at, halved, make_plan, memory_budget, repacked


def plan(cells, seeds, devices=2, budget=10**9, **engine):
    return make_plan(cells, seeds, jax.devices()[:devices], 1000, budget, Engine(**engine))


def chunks_of(plan, first=0):
    """The chunks of a plan from a lane on."""
    chunks = []
    while first < plan.lanes:
        chunks.append(chunk_at(plan, first))
        first = chunks[-1].end
    return chunks


def pairs_of(chunks):
    """The (seed, cell) of every lane, in order."""
    return [
        (seed, cell)
        for one in chunks
        for row, seed in zip(one.cells, one.seeds, strict=True)
        for cell in row
        if cell >= 0
    ]


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
@pytest.mark.parametrize("lanes_per_chunk", [0, 1, 5, 40])
@pytest.mark.parametrize(("cells", "seeds"), [(1, 1), (1, 7), (9, 4), (9, 3), (10, 1), (100, 3), (7, 5)])
def test_every_lane_stands_exactly_once_and_no_chunk_is_too_large(cells, seeds, devices, lanes_per_chunk):
    chosen = plan(cells, seeds, devices, lanes_per_chunk=lanes_per_chunk)
    chunks = chunks_of(chosen)
    assert len(chunks) == chosen.chunks
    assert all(one.cells.shape == (chosen.blocks_per_chunk, chosen.cells_per_block) for one in chunks)
    assert pairs_of(chunks) == [(seed, cell) for seed in range(seeds) for cell in range(cells)]
    if lanes_per_chunk:
        assert chosen.blocks_per_chunk * chosen.cells_per_block <= max(lanes_per_chunk, devices)


@pytest.mark.parametrize("finished", [False, True])
def test_halved_chunks_go_on_with_the_lanes_that_are_left(finished):
    whole = plan(7, 5, devices=2, lanes_per_chunk=12)
    first, left = chunks_of(whole)[0].end if finished else 0, whole
    sizes = []
    while left:
        chunks = chunks_of(left, first)
        assert pairs_of(chunks) == [divmod(lane, 7) for lane in range(first, 35)]
        sizes.append(left.blocks_per_group * left.cells_per_block)
        left = halved(left)
    assert sizes[-1] == 1 and all(later <= -(-size // 2) for size, later in itertools.pairwise(sizes))


@pytest.mark.parametrize("sizes", [(8, 1), (7, 6), (10**12, 10**12)])
def test_lanes_are_not_packed_into_more_than_there_are(sizes):
    assert repacked(plan(7, 5), 7, 5).chunks == 1
    with pytest.raises(
        UserError, match=r"cannot resume: .*, this sweep has 5 blocks of 7 cells in all; choose another"
    ):
        repacked(plan(7, 5), *sizes)


@pytest.mark.parametrize(("cells", "seeds"), [(9, 4), (9, 3), (16, 1), (25, 2), (1, 8), (64, 16)])
def test_at_most_a_fifth_of_the_work_is_filling(cells, seeds):
    chosen = plan(cells, seeds)
    assert chosen.chunks * chosen.blocks_per_chunk * chosen.cells_per_block <= 1.2 * cells * seeds


def test_memory_bounds_a_chunk():
    chosen = plan(100, 10, devices=2, budget=25_000)
    assert chosen.blocks_per_chunk * chosen.cells_per_block * 1000 <= 50_000
    assert chosen.chunks >= 20


def test_a_block_may_be_held_to_one_cell():
    chosen = make_plan(9, 4, jax.devices()[:2], 1000, 10**9 // 2, widest_block=1)
    assert chosen.cells_per_block == 1 and chosen.blocks_per_chunk == 36


def test_a_lane_that_does_not_fit_is_refused_with_the_arithmetic():
    with pytest.raises(UserError, match="a lane per device must fit in memory: 2 x"):
        plan(1, 1, budget=750)


def test_the_budget_is_a_share_of_memory_less_the_data_of_every_device(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert memory_budget(jax.devices()[:1], 0) == 500
    assert memory_budget(jax.devices()[:2], 0) == 250
    assert memory_budget(jax.devices()[:2], 100) == 150


def test_the_plan_says_what_it_is():
    text = str(plan(9, 4, lanes_per_chunk=18))
    assert text.startswith("36 lanes (9 cells x 4 seeds) on 2 CPU devices: 2 chunks of 2 blocks of 9 cells in turn")


def test_a_wide_grid_is_planned_at_once():
    chosen = plan(100_000, 3, devices=4, budget=10**12)
    assert sum(one.cells.size for one in chunks_of(chosen)) < 1.01 * 300_000


def test_what_the_user_decides_is_kept():
    assert [plan(100, 1, cells_per_block=cells).cells_per_block for cells in (1, 7, 50, 200)] == [1, 7, 50, 100]
    assert [plan(9, 4, blocks=how).sequential for how in ("auto", "in_turn", "in_parallel")] == [True, True, False]
    assert "in parallel" in str(plan(9, 4, blocks="in_parallel"))
    with pytest.raises(UserError, match=r"fit into its devices' share of a chunk, 4 lanes: got cells_per_block 5"):
        plan(9, 4, cells_per_block=5, lanes_per_chunk=8)
    with pytest.raises(UserError, match="blocks must be one of auto, in_turn, in_parallel"):
        Engine(blocks="sideways")


def test_a_chunk_holds_no_more_than_is_of_use_unless_it_is_told_to():
    chosen = make_plan(1000, 100, jax.devices()[:2], 150_000, 10**11)
    assert chosen.blocks_per_chunk * chosen.cells_per_block * 150_000 <= 2**30 < 100_000 * 150_000
    told = make_plan(1000, 100, jax.devices()[:2], 150_000, 10**11, Engine(lanes_per_chunk=50_000))
    assert told.chunks == 2
    assert make_plan(1, 4, jax.devices()[:2], 2**30, 2**32).blocks_per_chunk == 2


def test_on_a_cpu_a_block_of_large_lanes_stays_in_the_cache():
    sizes = {
        lane_bytes: make_plan(64, 4, jax.devices()[:2], lane_bytes, 2**40, Engine()).cells_per_block
        for lane_bytes in (2**10, 2**22, 2**30)
    }
    assert sizes == {2**10: 32, 2**22: 2, 2**30: 1}

"""How alike the dictionaries of a cell's seeds are, over the training."""

import itertools

import numpy as np
import pytest
import xarray as xr

import sae_jax
from sae_jax import DataConfig, UserError
from sae_jax.analysis.figures import drawn
from sae_jax.sweeps.consistency import matched_cosine, seed_consistency
from sae_jax.sweeps.footprint import footprint_of
from sae_jax.sweeps.observers import Observers
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare

RNG = np.random.default_rng(0)
DATA = DataConfig(dataset="superposition", samples=1000)
SETTINGS = {"d_hidden": [8, 12], "model": ["relu", "batch_topk"], "steps": [40, 60]}
SETTINGS |= {"batch_size": 32, "k": 3.0, "learning_rate": 0.01}


def cosines(first, second):
    return (first @ second.T) / np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))


def test_rows_are_matched_one_to_one_so_that_their_cosines_are_largest():
    first, second = RNG.normal(size=(2, 5, 7)).astype(np.float32)
    like = cosines(first, second)
    best = max(np.mean([like[i, j] for i, j in enumerate(order)]) for order in itertools.permutations(range(5)))
    assert matched_cosine(first, second) == pytest.approx(best, rel=1e-6)
    assert best > np.mean(np.diag(like)) + 0.1
    assert matched_cosine(first, 3 * first[[4, 2, 0, 1, 3]]) == pytest.approx(1, rel=1e-6)
    assert matched_cosine(first[:1], -first[:1]) == pytest.approx(-1, rel=1e-6)


def test_a_seed_is_compared_with_every_other_that_is_there():
    rows = RNG.normal(size=(4, 2, 5, 7)).astype(np.float32)
    rows[3, 1, 0, 0] = np.nan
    found = seed_consistency(rows)
    for seed, step in np.ndindex(4, 2):
        others = [other for other in range(4) if other != seed and np.isfinite(rows[[seed, other], step]).all()]
        expected = [matched_cosine(rows[seed, step], rows[other, step]) for other in others]
        assert (
            found[seed, step] == pytest.approx(np.mean(expected), rel=1e-6) if others else np.isnan(found[seed, step])
        )
    assert np.isnan(found[3, 1]) and np.isfinite(found).sum() == 7


@pytest.fixture(scope="module")
def runs():
    """Wide ones without snapshots, a sweep with them, and wide ones whose seeds are trained in chunks of their own."""
    wide = {"d_hidden": [12], "steps": [60]}
    every = [wide, {"snapshots": 4}, wide | {"snapshots": 4, "lanes_per_chunk": 2}]
    return [sae_jax.sweep(DATA, seeds=3, devices=2, **SETTINGS | one) for one in every]


def test_it_is_that_of_the_decoders_as_they_start_and_as_they_end(runs):
    _, run, in_chunks = runs
    assert run["seed_consistency"].dims == ("model", "d_hidden", "steps", "seed", "snapshot")
    assert run["snapshot"].values.tolist() == [0, 10, 15, 20, 30, 40, 45, 60]
    for model, steps, width in itertools.product(SETTINGS["model"], SETTINGS["steps"], (8, 12)):
        cell = run.sel(model=model, steps=steps, d_hidden=width)
        rows = cell["decoder_weight"].isel(unit=slice(width)).values
        np.testing.assert_allclose(
            cell["seed_consistency"].sel(snapshot=steps), seed_consistency(rows[:, None])[:, 0], rtol=1e-6
        )
        there = cell["seed_consistency"].notnull().all("seed")
        assert run["snapshot"].values[there].tolist() == [0, *(steps * i // 4 for i in (1, 2, 3, 4))]
        # Both architectures start from the same rows.
        start = run["seed_consistency"].sel(steps=steps, d_hidden=width, snapshot=0)
        np.testing.assert_allclose(start.sel(model="relu"), start.sel(model="batch_topk"), rtol=1e-5)
    wide = run["seed_consistency"].sel(d_hidden=[12], steps=[60], snapshot=in_chunks["snapshot"])
    np.testing.assert_array_equal(in_chunks["seed_consistency"], wide)


def test_the_training_is_the_same_with_snapshots_and_without(runs):
    without, run, _ = runs
    assert set(run.data_vars) == {*without.data_vars, "seed_consistency"}
    for name, values in without.data_vars.items():
        np.testing.assert_array_equal(run[name].sel(d_hidden=[12], steps=[60]), values, err_msg=name)


def test_a_figure_shows_it(runs):
    [(name, figure)] = drawn(runs[1], ["consistency"])
    lines = [line for panel in figure.axes for line in panel.lines]
    assert name == "consistency" and len(lines) == 8
    cell = runs[1]["seed_consistency"].isel(model=0, steps=0, d_hidden=0).dropna("snapshot").mean("seed")
    assert any(np.allclose(line.get_ydata(), cell, rtol=1e-6) for line in lines if len(line.get_ydata()) == 5)


def test_the_plan_counts_the_rows_that_are_held():
    def room(snapshots):
        study = prepare(
            DATA,
            "relu",
            seeds=3,
            engine=Engine(),
            observer=Observers(()),
            d_hidden=[8, 12],
            steps=20,
            snapshots=snapshots,
        )
        return footprint_of(study, "all")

    without, with_rows = room(0), room(4)
    # Five times the rows of 8 and of 12 units, twice while chunks are put together; the consistencies are small.
    rows = 4 * 5 * (8 + 12) * 32 * 3
    assert 2 * rows <= with_rows.unfinished - without.unfinished < 6 * rows
    assert with_rows.results - without.results == 4 * 5 * 2 * 3


def test_seeds_that_are_not_trained_together_are_refused():
    with pytest.raises(UserError, match="snapshots compares the decoder rows of several seeds: got one seed; use"):
        sae_jax.sweep(DATA, "relu", snapshots=2, steps=5)


def test_tied_rows_are_compared_and_lanes_that_stop_or_diverge_do_not_depend_on_their_chunk():
    tied = sae_jax.sweep(DATA, tied=True, output="linear", d_hidden=6, steps=20, batch_size=32, snapshots=2, seeds=2)
    rows = tied["decoder_weight"].values
    np.testing.assert_allclose(tied["seed_consistency"].values[:, -1], seed_consistency(rows[:, None])[:, 0], rtol=1e-6)
    settings = {"d_hidden": 6, "batch_size": 32, "steps": 300, "patience": 5, "snapshots": 4, "k": 3.0, "seeds": 2}
    rates = [1e-9, 3e-4, 1e38]
    runs = [
        sae_jax.sweep(DATA, "topk", learning_rate=rates, devices=1, lanes_per_chunk=most, **settings) for most in (1, 6)
    ]
    alone, together = (run["seed_consistency"] for run in runs)
    np.testing.assert_allclose(alone, together, rtol=1e-4)
    assert (runs[0]["stopped_at"].isel(learning_rate=0) > 0).all() and alone.isel(learning_rate=[0, 1]).notnull().all()
    assert alone.isel(learning_rate=2).isnull().all()
    ends = runs[1].isel(learning_rate=1)["decoder_weight"].values
    np.testing.assert_allclose(alone.values[1, :, -1], seed_consistency(ends[:, None])[:, 0], rtol=1e-4)


def test_cells_of_which_some_seeds_are_known_are_refused():
    parts = [
        sae_jax.sweep(DATA, "topk", k=k, seeds=seeds, d_hidden=6, steps=5, snapshots=1)
        for k, seeds in ((2.0, [0, 1]), (3.0, [2, 3]))
    ]
    with pytest.raises(
        UserError, match="snapshots compares seeds that are trained together: got 2 of 4 seeds to train"
    ):
        sae_jax.extend(sae_jax.merge(*parts))


def test_an_extension_compares_its_cells_and_keeps_what_was_compared(tmp_path, monkeypatch):
    from sae_jax.commands import sweep

    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "superposition", "--samples", "500", "--model", "relu", "--steps", "20", "--batch-size", "16"]
    words += ["--d-hidden", "6", "--figures", "False", "--report", "False"]
    sweep.main([*words, "--snapshots", "2", "--l1", "0.1", "0.2", "--seeds", "2", "--name", "a"])
    sweep.main(["--extend", "a", "--l1", "0.1", "0.2", "0.4", "--figures", "False", "--report", "False", "--name", "b"])
    before, after = (sae_jax.results.load(tmp_path / "runs" / name)["seed_consistency"] for name in "ab")
    xr.testing.assert_equal(after.sel(l1=[0.1, 0.2]).drop_attrs(), before.drop_attrs())
    assert after.notnull().all()
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--extend", "a", "--seeds", "3", "--figures", "False", "--report", "False", "--name", "c"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("l1", [0.1, [0.1, 0.2]])
def test_a_merge_has_none_of_cells_whose_seeds_were_compared_apart(l1):
    settings = {"model": "relu", "steps": 20, "batch_size": 16, "d_hidden": 6, "snapshots": 2}
    data = DataConfig(dataset="superposition", samples=500)
    first, second = (sae_jax.sweep(data, seeds=seeds, l1=l1, **settings) for seeds in ([0, 1], [2, 3]))
    whole = sae_jax.sweep(data, seeds=[0, 1], l1=[0.1, 0.2, 0.4], **settings)
    merged = sae_jax.merge(first, second)
    assert merged["seed_consistency"].isnull().all() and merged["eval_l0"].notnull().all()
    assert sae_jax.merge(first, whole)["seed_consistency"].notnull().all()
    apart = sae_jax.merge(second, whole)["seed_consistency"]
    assert apart.sel(l1=l1).isnull().all() and apart.sel(l1=0.4, seed=[0, 1]).notnull().all()

"""What is kept of every unit: against plain NumPy, and of every kind of lane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import sae_jax
from sae_jax import DataConfig, UserError, sweep
from sae_jax.analysis import cosines, top_samples, trained_lane, units
from sae_jax.analysis.options import UnitsConfig
from sae_jax.analysis.units import measure, units_of
from sae_jax.storage import arrays, netcdf, results
from tests.analysis.kept_units import DIGITS, OPTIONS, RNG, SHORT, X, kept_of, units_variables


def by_hand(codes, active, top, quantiles, each):
    """Density, mean, top samples and samples at quantiles of one unit, one by one."""
    firing = [sample for sample in range(len(codes)) if active[sample]]
    highest = sorted(firing, key=lambda sample: (-codes[sample], sample))[:top]
    rising = sorted(firing, key=lambda sample: codes[sample])
    around = []
    for quantile in quantiles:
        first = round(quantile * (len(rising) - 1)) - (each - 1) // 2
        first = min(max(first, 0), max(len(rising) - each, 0))
        around.append(rising[first : first + each])
    mean = np.mean([codes[sample] for sample in firing]) if firing else np.nan
    return len(firing) / len(codes), mean, highest, around


def codes_of(lane, x):
    """Codes of normalised samples."""
    return np.asarray(sae_jax.encode(jax.tree.map(jnp.asarray, lane.params), x, lane.settings))


def filled(values, size):
    return [*values, *[-1] * (size - len(values))]


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("d_hidden", [5, 12])
def test_numbers_are_those_of_plain_numpy(digits, kept, d_hidden):
    run = sae_jax.open(digits)
    lanes = [run.lane(d_hidden=d_hidden, seed=seed) for seed in range(3)]
    heldout = sae_jax.load(DIGITS).heldout
    codes = codes_of(lanes[1], heldout)
    rows = [lane.params["decoder_weight"] for lane in lanes]
    found = kept.sel(d_hidden=d_hidden, seed=1)
    for unit in range(d_hidden):
        one = found.isel(unit=unit)
        density, mean, highest, around = by_hand(codes[:, unit], codes[:, unit] > 0, 6, (0, 0.5, 1), 3)
        np.testing.assert_allclose(one["units_density"], density, rtol=1e-6)
        np.testing.assert_allclose(one["units_mean_active"], mean, rtol=1e-5)
        assert one["units_dead"] == (density == 0) and one["units_dense"] == (density > 0.1)
        assert one["units_top_sample"].values.tolist() == filled(highest, 6)
        np.testing.assert_allclose(one["units_top_activation"][: len(highest)], codes[highest, unit], rtol=1e-5)
        assert one["units_top_activation"][len(highest) :].isnull().all()
        for quantile, samples in enumerate(around):
            at = one.isel(activation_quantile=quantile)
            assert at["units_quantile_sample"].values.tolist() == filled(samples, 3)
            np.testing.assert_allclose(at["units_quantile_activation"][: len(samples)], codes[samples, unit], rtol=1e-5)
        near = {other: cosine(rows[1][unit], rows[1][other]) for other in range(d_hidden) if other != unit}
        nearest = sorted(near, key=near.get, reverse=True)[:4]
        assert one["units_nearest"].values.tolist() == nearest
        np.testing.assert_allclose(one["units_nearest_cosine"], [near[other] for other in nearest], rtol=1e-4)
        for seed in (0, 2):
            match = [cosine(rows[1][unit], row) for row in rows[seed]]
            assert one["units_match"].sel(other_seed=seed) == np.argmax(match)
            np.testing.assert_allclose(one["units_match_cosine"].sel(other_seed=seed), max(match), rtol=1e-4)
        assert one["units_match"].sel(other_seed=1) == -1 and one["units_match_cosine"].sel(other_seed=1).isnull()


def test_a_narrower_lane_holds_nothing_beyond_its_units(kept):
    beyond = kept.sel(d_hidden=5).isel(unit=slice(5, None))
    for name in units_variables(kept):
        values = beyond[name].values
        assert (np.isnan(values) if values.dtype.kind == "f" else values == -1).all(), name
    assert kept["units_density"].dims == ("d_hidden", "seed", "unit")
    assert (kept["units_nearest"].sel(d_hidden=5).values < 5).all()


def test_every_variable_describes_itself(kept):
    assert len(units_variables(kept)) == 12
    for name in units_variables(kept):
        for one in (name, *kept[name].dims):
            assert kept[one].attrs["long_name"] and kept[one].attrs["units"], one


def test_blocks_change_nothing(digits, kept, monkeypatch):
    monkeypatch.setattr(trained_lane, "PIECE_BYTES", 4 * 80 * 7)
    monkeypatch.setattr(cosines, "PIECE_BYTES", 4 * 12 * 5)
    again = measure(digits, OPTIONS).variables
    for name in units_variables(kept):
        np.testing.assert_allclose(again[name], kept[name], rtol=1e-5, err_msg=name)


def test_of_samples_alike_the_first_are_kept():
    lane = sae_jax.open(sweep(RNG.uniform(size=(40, 6)), d_hidden=3, batch_size=8, steps=2, seeds=1)).lane()
    found = units_of(lane, np.full((30, 6), 0.5), options=UnitsConfig(top=4))
    active = found["units_density"] == 1
    assert active.any() and (found["units_top_sample"].values[active] == np.arange(4)).all()


def test_quantiles_of_many_samples_are_those_of_some_drawn_at_random(digits, monkeypatch):
    monkeypatch.setattr(top_samples, "DRAWN", 100)
    lane = sae_jax.open(digits).lane(d_hidden=5, seed=0)
    heldout = sae_jax.load(DIGITS).train
    found = units_of(lane, heldout, options=UnitsConfig(quantiles=(0.1, 0.5, 0.9), each=2))
    codes = codes_of(lane, heldout)
    samples, shown = found["units_quantile_sample"].values, found["units_quantile_activation"].values
    checked = 0
    for unit in np.flatnonzero(found["units_density"] > 0.1):
        assert (samples[unit] >= 0).all() and (np.diff(shown[unit].ravel()) >= 0).all()
        np.testing.assert_allclose(shown[unit], codes[samples[unit], unit], rtol=1e-5)
        ranks = np.searchsorted(np.sort(codes[codes[:, unit] > 0, unit]), shown[unit].mean(axis=1))
        np.testing.assert_allclose(ranks / (codes[:, unit] > 0).sum(), (0.1, 0.5, 0.9), atol=0.12)
        checked += 1
    assert checked


def test_where_negative_codes_are_active_the_largest_magnitudes_come_first():
    results = sweep(X, model="abs_topk", k=2, d_hidden=6, seeds=1, **SHORT)
    lane = sae_jax.open(results).lane()
    codes = lane.encode(X)
    found = units_of(lane, X, options=UnitsConfig(top=5))
    assert codes.min() < 0
    order = np.argsort(-np.abs(codes), axis=0, kind="stable")[:5].T
    expected = np.take_along_axis(codes.T, order, axis=1)
    np.testing.assert_allclose(found["units_top_activation"].fillna(0), expected, rtol=1e-5)


def test_of_a_dead_unit_there_is_nothing(digits):
    dead = digits.copy(deep=True)
    dead["encoder_bias"].loc[{"d_hidden": 12, "seed": 2, "unit": 3}] = -1e9
    found = kept_of(dead).sel(d_hidden=12, seed=2, unit=3)
    assert found["units_dead"] == 1 and found["units_density"] == 0 and found["units_mean_active"].isnull()
    assert (found["units_top_sample"] == -1).all() and (found["units_quantile_sample"] == -1).all()
    assert found["units_top_activation"].isnull().all() and (found["units_nearest"] >= 0).all()


def test_a_row_of_zeros_is_near_to_nothing():
    rows = np.array([[1.0, 0], [0, 0], [1, 1], [0, -2]], np.float32)
    numbers, values = cosines.nearest_rows(rows, count=3)
    assert numbers.tolist() == [[2, 3, -1], [-1, -1, -1], [0, 3, -1], [0, 2, -1]]
    np.testing.assert_allclose(values[2], [np.sqrt(0.5), -np.sqrt(0.5), np.nan], rtol=1e-6)
    assert cosines.nearest_rows(rows[:1], count=2)[0].tolist() == [[-1, -1]]


def test_a_diverged_lane_holds_nothing_and_is_no_match(digits, kept):
    wild = digits.copy(deep=True)
    wild["diverged_at"].loc[{"d_hidden": 12, "seed": 0}] = 3
    wild["decoder_weight"].loc[{"d_hidden": 12, "seed": 0}] = np.nan
    found = kept_of(wild)
    lane = found.sel(d_hidden=12, seed=0)
    assert lane["units_density"].isnull().all() and (lane["units_top_sample"] == -1).all()
    other = found.sel(d_hidden=12, seed=1)
    assert (other["units_match"].sel(other_seed=0) == -1).all() and (other["units_match"].sel(other_seed=2) >= 0).all()
    names = units_variables(kept)
    xr.testing.assert_allclose(found[names].sel(d_hidden=5), kept[names].sel(d_hidden=5))
    wild["diverged_at"][:] = 3
    with pytest.raises(UserError, match="must hold a lane that did not diverge: got none"):
        measure(wild, OPTIONS)


def test_one_lane_alone(digits, kept):
    found = kept_of(digits, point={"d_hidden": 12, "seed": 2})
    assert int(found["units_density"].notnull().any("unit").sum()) == 1
    for name in units_variables(found):
        np.testing.assert_array_equal(found[name].sel(d_hidden=12, seed=2), kept[name].sel(d_hidden=12, seed=2))


def test_one_seed_has_no_matches_and_another_time_replaces_the_first(words):
    assert "units_match" not in words and "other_seed" not in words.dims
    fewer = kept_of(words, UnitsConfig(top=2, quantiles=(0.3,)))
    assert fewer.sizes["top_rank"] == 2 and fewer["activation_quantile"].values.tolist() == [0.3]
    assert set(units_variables(fewer)) == set(units_variables(words))


def test_names_are_those_of_the_top_samples_and_go_through_files(words, tmp_path, monkeypatch):
    heldout = sae_jax.load(DataConfig(dataset="words", heldout=0.5)).heldout_names
    shown = {"\n": "\\n"}
    for place, number in np.ndenumerate(words["units_top_sample"].values):
        name = words["units_top_name"].values[place]
        assert name == ("" if number < 0 else shown.get(heldout[number], heldout[number]))
    results.save(words, tmp_path)
    xr.testing.assert_equal(results.load(tmp_path), words)
    for module in (arrays, netcdf):
        monkeypatch.setattr(module, "PIECE_BYTES", 100)
    results.save(words, tmp_path)
    xr.testing.assert_equal(results.load(tmp_path), words)


def test_runs_are_merged_with_what_was_kept(words):
    settings = {"model": "topk", "k": 2, "d_hidden": 8, **SHORT}
    other = sweep(DataConfig(dataset="words", heldout=0.5), **settings | {"d_hidden": 5}, seeds=2)
    fewer = UnitsConfig(top=2, quantiles=(0.3,))
    both = sae_jax.merge(words, kept_of(other, fewer))
    wide = both.sel(d_hidden=8, seed=0)
    np.testing.assert_array_equal(wide["units_top_sample"], words["units_top_sample"].isel(seed=0))
    np.testing.assert_array_equal(wide["units_top_name"], words["units_top_name"].isel(seed=0).values.astype(str))
    narrow = both.sel(d_hidden=5, seed=1)
    assert (narrow["units_top_name"].values[:, 2:] == "").all()
    assert narrow["units_top_sample"][:, 2:].isnull().all() and (narrow["units_match"].sel(other_seed=0)[:5] >= 0).all()


def test_what_is_kept_must_fit_in_memory(digits, monkeypatch):
    monkeypatch.setattr(units, "available_memory", lambda: 2**20)
    with pytest.raises(UserError, match=r"must fit in memory: got 6 lanes of 12 units, which take .*; keep fewer"):
        measure(digits, UnitsConfig(top=2000))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ["a"]}, "names must be a list of 9 words, one for each sample: got 1 names"),
        ({"samples": np.zeros((0, 64))}, "samples must hold at least one: got none"),
        ({"others": {-1: None}}, "others' seeds must be a whole number in"),
        ({"others": {1: 3}}, "others must be lanes by seed: got 3"),
    ],
)
def test_wrong_arguments_are_refused(digits, arguments, words):
    lane = sae_jax.open(digits).lane(d_hidden=5, seed=0)
    with pytest.raises(UserError, match=words):
        units_of(**{"lane": lane, "samples": np.zeros((9, 64))} | arguments)


def test_named_samples_of_a_lane_of_ones_own(digits):
    lane = sae_jax.open(digits).lane(d_hidden=5, seed=0)
    samples = sae_jax.load(DIGITS).heldout[:50]
    other = {7: sae_jax.open(digits).lane(d_hidden=12, seed=1)}
    found = units_of(lane, samples, [f"digit {i}" for i in range(50)], other)
    number = found["units_top_sample"].values
    expected = np.where(number >= 0, np.char.add("digit ", number.astype(str)), "")
    np.testing.assert_array_equal(found["units_top_name"].values.astype(str), expected)
    assert found["other_seed"].values.tolist() == [7] and 5 <= found["units_match"].max() < 12

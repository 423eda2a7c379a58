"""Sweeps put together, by `merge` and as xarray's users do it; what nobody trained is absent."""

import json

import matplotlib
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import sae_jax
from sae_jax import CLASSIC, DataConfig, UserError, as_data, extend, merge, sweep
from sae_jax.analysis import figures
from sae_jax.analysis.figures import save_all
from sae_jax.analysis.report import print_table
from sae_jax.analysis.tasks import TaskConfig, apply
from sae_jax.storage import results
from sae_jax.sweeps.lane_warnings import warnings_of
from sae_jax.sweeps.reading import grid_of, stored_normalisation

matplotlib.use("Agg")
DIGITS = DataConfig(dataset="digits", samples=100)
SETTINGS = {"batch_size": 20, "steps": 8}
GRID = {"rho": [0.05, 0.1, 0.2], "beta": [0.5, 1.0]}
QUICK = TaskConfig(noise=(0.1, 0.2))


@pytest.fixture(scope="module")
def whole():
    return sweep(DIGITS, seeds=3, d_hidden=4, **GRID, **SETTINGS)


@pytest.fixture(scope="module")
def holes(whole):
    """Two programs with settings that no other cell may have, k 5 with 6 units alone, and seeds that differ."""
    wide = sweep(DIGITS, seeds=[2, 7], d_hidden=6, k=5, rho=0.2, beta=1.0, **SETTINGS)
    return merge(whole.sel(rho=[0.05, 0.1], seed=[0, 1]), wide)


def test_parts_of_a_sweep_are_the_sweep_again(whole):
    parts = [
        whole.sel(rho=[0.2]),
        whole.sel(rho=0.05, beta=[1.0, 0.5]),
        whole.sel(rho=0.05, seed=2),
        whole.sel(rho=[0.1, 0.05]),
    ]
    made = merge(*parts)
    assert made.attrs == whole.attrs and set(made.coords) == set(whole.coords)
    for name, values in whole.data_vars.items():
        # Values that are not ascending in every part come in the order of their appearance.
        order = {axis: values[axis] for axis in GRID if axis in values.dims}
        there = made[name].sel(order)
        assert there.dims == values.dims and there.dtype == values.dtype
        np.testing.assert_array_equal(there, values)


def test_holes_are_absent_and_everything_lives_with_them(holes, tmp_path, monkeypatch):
    assert dict(holes.sizes) | {"rho": 3, "beta": 2, "d_hidden": 2, "k": 2, "seed": 4} == dict(holes.sizes)
    lanes = holes["diverged_at"].notnull()
    assert int(lanes.sum()) == 10
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: None)
    assert len(save_all(holes, tmp_path)) == 6
    console = Console(width=160, record=True)
    print_table(console, holes)
    rows = [line for line in console.export_text().splitlines() if line.strip()[:3] in ("0.0", "0.1", "0.2")]
    assert len(rows) == 5 and not any("nan" in row for row in rows)
    assert any("of 10 lanes" in line for line in warnings_of(holes))
    measured, _ = apply("denoising", holes, QUICK)
    assert bool((measured["denoising_psnr"].notnull().all("noise_level") == lanes).all())
    assert "present" not in measured.coords
    results.save(measured, tmp_path)
    xr.testing.assert_identical(results.load(tmp_path), measured)
    run = sae_jax.open(holes)
    assert run.lane(rho=0.2, beta=1.0, d_hidden=6, k=5, seed=7).d_hidden == 6
    with pytest.raises(UserError, match="must hold the lane: got a hole of a merged grid"):
        run.lane(rho=0.2, beta=0.5, d_hidden=6, k=5, seed=7)


def test_curves_of_a_grid_with_holes_are_those_of_its_cells(holes):
    [(_, drawn)] = figures.drawn(holes, ["curves"])
    panels = [panel for panel in drawn.axes if panel.get_xlabel() == "step" or panel.lines]
    lines = [line for panel in panels for line in panel.get_lines() if len(line.get_xdata()) > 1]
    finite = [line for line in lines if np.isfinite(np.asarray(line.get_ydata(), float)).any()]
    assert len(finite) == len(lines) and len(lines) % 5 == 0 and lines


def test_joined_selected_and_transposed_datasets_are_put_to_tasks(whole):
    expected = apply("denoising", whole, QUICK)[0]["denoising_psnr"]
    joined = xr.concat([whole.sel(rho=value) for value in GRID["rho"]], "rho", data_vars="all")
    ordered = xr.combine_by_coords([whole.sel(rho=[value]) for value in GRID["rho"]], data_vars="all")
    for dataset in (joined, ordered, whole.transpose(..., "rho")):
        made = apply("denoising", dataset, QUICK)[0]["denoising_psnr"]
        np.testing.assert_allclose(made.transpose(*expected.dims), expected, rtol=1e-5)
    for part in ({"rho": 0.1}, {"rho": [0.1], "beta": 0.5}, {"seed": 1, "beta": [1.0]}):
        made = apply("denoising", whole.sel(part), QUICK)[0]["denoising_psnr"]
        np.testing.assert_allclose(made.squeeze(), expected.sel(part).squeeze(), rtol=1e-5)


def test_separate_sweeps_join_by_xarray_alone(whole):
    apart = [sweep(DIGITS, seeds=3, d_hidden=4, rho=value, beta=GRID["beta"], **SETTINGS) for value in GRID["rho"][:2]]
    joined = xr.concat(apart, "rho", data_vars="all")
    assert joined["rho"].values.tolist() == [0.05, 0.1] and grid_of(joined).axes["rho"] == (0.05, 0.1)
    np.testing.assert_allclose(joined["loss"], whole["loss"].sel(rho=[0.05, 0.1]), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("new_defaults", [False, True])
def test_sweeps_of_one_value_each_are_combined_by_their_coordinates(new_defaults, tmp_path, monkeypatch):
    settings = {"d_hidden": 4, "beta": 1.0, "seeds": 2, "normalize": "standardize", "output": "linear", **SETTINGS}
    parts = [sweep(DIGITS, rho=[value], **settings) for value in (0.1, 0.05)]
    for name, part in zip("ab", parts, strict=True):
        (tmp_path / name).mkdir()
        results.save(part, tmp_path / name)
    expected = sweep(DIGITS, rho=[0.05, 0.1], **settings)
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: None)
    names = ["eval_l0", "loss", "encoder_weight"]
    with xr.set_options(use_new_combine_kwarg_defaults=new_defaults):
        for given in (parts, [sae_jax.open(tmp_path / name).dataset for name in "ab"]):
            joined = xr.combine_by_coords(given)
            xr.testing.assert_allclose(joined[names], expected[names], rtol=1e-5)
            assert joined.attrs == expected.attrs and set(joined.coords) == set(expected.coords)
        # Where each is of a value and no list, xarray is told along what.
        alone = [sweep(DIGITS, rho=value, **settings).expand_dims("rho") for value in (0.05, 0.1)]
        told = xr.combine_by_coords(alone)
    for dataset in (joined, told):
        assert grid_of(dataset).axes == {"rho": (0.05, 0.1)} and save_all(dataset, tmp_path)
        results.save(merge(dataset), tmp_path)
        assert results.load(tmp_path).attrs == expected.attrs
        measured = apply("denoising", dataset, QUICK)[0]["denoising_psnr"]
        np.testing.assert_allclose(measured, apply("denoising", expected, QUICK)[0]["denoising_psnr"], rtol=1e-5)


@pytest.mark.parametrize("data_vars", ["all", "minimal"])
def test_joined_sweeps_keep_what_was_done_to_their_samples(data_vars):
    parts = [sweep(DIGITS, normalize="standardize", output="linear", rho=[rho], **SETTINGS) for rho in (0.05, 0.1)]
    names = list(parts[0].data_vars) if data_vars == "all" else [n for n, v in parts[0].items() if "rho" in v.dims]
    with xr.set_options(use_new_combine_kwarg_defaults=True):
        joined = xr.combine_by_coords(parts, data_vars=names, compat="override")
    known = stored_normalisation(parts[0])
    np.testing.assert_array_equal(stored_normalisation(joined).scale, known.scale)
    other = joined.assign(input_scale=joined["input_scale"] * xr.DataArray([1.0, 2.0], dims="rho"))
    assert stored_normalisation(other) is None


def test_a_setting_whose_coordinate_was_dropped_is_not_taken_for_its_default(whole):
    for refused in (grid_of, sae_jax.open):
        with pytest.raises(UserError, match="must keep the coordinates of settings: got none of steps; select without"):
            refused(whole.drop_vars("steps"))
    older = whole.drop_vars("steps").drop_attrs(deep=False).assign_attrs(axes=whole.attrs["axes"])
    older = older.assign_attrs(config='{"model": "classic", "steps": 8}')
    assert grid_of(older).fixed["steps"] == sae_jax.open(older).lane(rho=0.1, beta=1.0, seed=0).settings.training.steps


def test_a_sweep_from_before_there_was_a_setting_joins_one_from_after_along_no_more_dimensions():
    older, newer = (sweep(DIGITS, d_hidden=4, rho=[rho], **SETTINGS) for rho in (0.05, 0.1))
    named = [name for name in json.loads(older.attrs["settings"]) if name != "history_size"]
    older = older.drop_vars("history_size").assign_attrs(settings=json.dumps(named))
    for joined in (merge(older, newer), extend(older, DIGITS, rho=[0.05, 0.1])):
        assert grid_of(joined).axes == {"rho": (0.05, 0.1)} and bool(joined["eval_l0"].notnull().all())
        assert joined["history_size"].item() == newer["history_size"].item()


def test_a_lane_that_two_hold_must_be_the_same(whole):
    other = whole.copy(deep=True)
    other["encoder_bias"].loc[{"rho": 0.1, "beta": 1.0, "seed": 1}] += 0.1
    with pytest.raises(
        UserError, match=r"must be equal: got another encoder_bias of rho 0.1, beta 1.0, seed 1; leave it"
    ):
        merge(whole, other)
    assert merge(whole, other.sel(rho=[0.05, 0.2])).sizes["rho"] == 3


def test_other_samples_and_other_models_are_refused(whole, samples):
    tables = [
        sweep(as_data(part), d_hidden=4, rho=rho, **SETTINGS) for part, rho in ((samples, 0.1), (samples[1:], 0.2))
    ]
    with pytest.raises(
        UserError, match="merged sweeps must be trained on the same samples: got others of dataset array"
    ):
        merge(*tables)
    both = merge(whole, sweep(DataConfig(dataset="digits", samples=90), d_hidden=4, rho=0.1, **SETTINGS))
    assert both["samples"].values.tolist() == [90, 100] and both["data_summary"].dims == ("samples",)
    named = whole.assign_attrs(config=whole.attrs["config"].replace('"classic"', '"other"'))
    with pytest.raises(UserError, match="unknown model other"):
        merge(whole, named)
    with pytest.raises(UserError, match="merge needs a sweep"):
        merge()
    assert merge(whole, model=CLASSIC).sizes == whole.sizes


def test_pairs_join_pairs(whole):
    zip = ("rho", "beta")
    first = sweep(DIGITS, rho=[0.05, 0.1], beta=[1.0, 0.5], zip=zip, d_hidden=4, **SETTINGS)
    made = merge(first, whole.sel(rho=[0.2], seed=[0]))
    assert made["rho_beta"].values.tolist() == ["0.05, 1", "0.1, 0.5", "0.2, 0.5", "0.2, 1"]
    np.testing.assert_array_equal(made["loss"][2:], whole["loss"].sel(rho=0.2, seed=[0]))
    assert sae_jax.open(made).lane(rho=0.1, beta=0.5).point == {"rho": 0.1, "beta": 0.5, "seed": 0}

"""Tables: a row for every lane, a row for every cell, in the terminal and as CSV, Markdown and LaTeX."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sae_jax import UserError
from sae_jax.analysis.cells import over_seeds
from sae_jax.analysis.formats import as_csv, as_latex, as_markdown
from sae_jax.analysis.report import print_table
from sae_jax.analysis.select import selected
from sae_jax.analysis.summary import cell_table, digits_of, lane_rows, write_summary
from sae_jax.sweeps.consoles import plain_console

SIZES = {"rho": 2, "activation": 2, "seed": 3}


def variable(values, label, units="1", kind="measure", dims=tuple(SIZES)):
    return xr.Variable(dims, values, {"long_name": label, "units": units, "kind": kind})


@pytest.fixture
def dataset():
    """Two rho and two activations, three seeds; one lane diverged, and the lanes of one cell are absent."""
    random = np.random.default_rng(0)
    diverged = np.full((2, 2, 3), -1.0)
    diverged[0, 0, 2], diverged[1, 1] = 7, np.nan
    measures = {
        "eval_reconstruction": variable(random.uniform(1, 2, (2, 2, 3)), "error"),
        "eval_l0": variable(random.uniform(10, 20, (2, 2, 3)), "active units", "unit"),
        "eval_explained_variance": variable(random.uniform(0, 1, (2, 2, 3)), "explained variance"),
        "eval_dead_fraction": variable(random.uniform(0, 1, (2, 2, 3)), "dead units"),
        "probe_accuracy": variable(random.uniform(0, 1, (2, 2, 3)), "accuracy", kind="task"),
    }
    for one in measures.values():
        one[1, 1] = np.nan
    status = {
        "diverged_at": variable(diverged, "step", "step", "status"),
        "stopped_at": variable(diverged * 0 - 1, "step", "step", "status"),
    }
    coordinates = {"rho": [0.05, 0.1], "activation": ["sigmoid", "relu"], "seed": [0, 1, 2], "beta": 3.0}
    return xr.Dataset(measures | status, coordinates, {"axes": '["rho", "activation"]', "config": '{"beta": 3.0}'})


def printed(dataset, width=80):
    file = io.StringIO()
    print_table(plain_console(file, width), dataset)
    return file.getvalue()


def test_a_deviation_is_that_of_a_sample_and_of_one_seed_there_is_none():
    values = xr.DataArray([[1.0, 3.0], [5.0, np.nan], [np.inf, np.nan]], dims=("rho", "seed"))
    mean, deviation, seeds = over_seeds(values)
    np.testing.assert_allclose(mean, [2, 5, np.nan])
    np.testing.assert_allclose(deviation, [np.sqrt(2), np.nan, np.nan])
    assert seeds.values.tolist() == [2, 1, 0]


def test_spreads_are_taken_under_the_filters_of_warnings_that_other_threads_have(monkeypatch):
    before, meanwhile, count = list(warnings.filters), [], xr.DataArray.count
    monkeypatch.setattr(
        xr.DataArray, "count", lambda *words: (meanwhile.append(list(warnings.filters)), count(*words))[1]
    )
    over_seeds(xr.DataArray([1e308, -1e308], dims="seed"))
    assert meanwhile == [before]


def test_every_lane_has_a_row_with_all_that_was_measured(dataset, tmp_path):
    rows = pd.read_csv(write_summary(dataset, tmp_path))
    measures = [name for name in dataset.data_vars if name not in ("diverged_at", "stopped_at")]
    assert list(rows) == ["rho", "activation", "seed", *measures, "diverged_at", "stopped_at"]
    assert len(rows) == 9  # Those of the absent cell have none.
    for _, row in rows.iterrows():
        lane = dataset.sel(rho=row["rho"], activation=row["activation"], seed=row["seed"])
        for name in measures:
            assert row[name] == pytest.approx(float(lane[name]), rel=1e-6)
    assert rows["diverged_at"].tolist() == [-1, -1, 7, *[-1] * 6] and rows["stopped_at"].tolist() == [-1] * 9


def test_one_lane_has_one_row(dataset):
    assert len(lane_rows(selected(dataset, ["rho=.05", "activation=relu", "seed=1"]))) == 1


def test_a_cells_numbers_are_mean_deviation_and_seeds_without_those_that_diverged(dataset):
    table = cell_table(dataset)
    rows = pd.read_csv(io.StringIO(as_csv(table)))
    assert list(zip(rows["rho"], rows["activation"], strict=True)) == [
        (0.05, "sigmoid"),
        (0.05, "relu"),
        (0.1, "sigmoid"),
    ]
    seeds = dataset["eval_l0"].values[0, 0, :2]
    assert rows["eval_l0"][0] == pytest.approx(seeds.mean()) and rows["eval_l0_n"].tolist() == [2, 3, 3]
    assert rows["eval_l0_sd"][0] == pytest.approx(np.std(seeds, ddof=1))
    assert table.caption == (
        "mean +- sample standard deviation over 3 seeds; without 1 lanes that diverged and 3 lanes that are absent"
    )


def test_axes_that_make_no_rows_are_averaged_over_within_each_seed(dataset):
    whole = dataset.drop_vars("diverged_at").isel(rho=[0])
    table = cell_table(whole, by=["rho"], measures=["eval_l0"])
    seeds = whole["eval_l0"].values[0].mean(axis=0)
    assert table.points == [{"rho": 0.05}] and table.means["eval_l0"][0] == pytest.approx(seeds.mean())
    assert table.deviations["eval_l0"][0] == pytest.approx(np.std(seeds, ddof=1))
    assert "every seed is a mean over activation (2 values)" in table.caption
    assert list(cell_table(dataset, by=["activation", "rho"]).points[0]) == ["activation", "rho"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": ["roh"]}, "unknown axis roh: did you mean rho?"),
        ({"by": ["seed"]}, "unknown axis seed"),
        ({"measures": ["eval_lo"]}, "unknown measure eval_lo: did you mean eval_l0?"),
    ],
)
def test_what_a_table_cannot_show_is_refused(dataset, arguments, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        cell_table(dataset, **arguments)


def test_markdown_and_latex_say_what_their_numbers_are(dataset):
    table = cell_table(dataset, measures=["eval_l0", "probe_accuracy"])
    mean, deviation = table.means["eval_l0"][1], table.deviations["eval_l0"][1]
    lines = as_markdown(table).splitlines()
    assert lines[0] == "| rho | activation | L0 | probe accuracy | n |" and lines[3].endswith("| 3 |")
    assert lines[3].startswith(f"| 0.05 | relu | {mean:.2f} ± {deviation:.2f} |")
    assert lines[-1].startswith("mean ± sample standard deviation over 3 seeds")
    lines = as_latex(table).splitlines()
    assert lines[1].startswith("% mean +- sample standard deviation over 3 seeds")
    assert rf"0.05 & relu & ${mean:.2f} \pm {deviation:.2f}$ &" in lines[7] and lines[7].endswith(r"& 3 \\")
    under = dataset.rename(activation="kind_of").assign_attrs(axes='["rho", "kind_of"]')
    assert r"rho & kind\_of &" in as_latex(cell_table(under))


def test_the_terminals_table_fits_it_and_names_what_it_leaves_out(dataset):
    wide, narrow = printed(dataset, 90), printed(dataset, 60)
    for text, width in ((wide, 90), (printed(dataset), 80), (narrow, 60)):
        assert max(map(len, text.splitlines())) <= width
        assert text.replace("\n", " ").startswith("held-out data, mean +- sample standard deviation over 3 seeds")
    assert "L0" in wide and "dead share" in wide and "left out" not in wide
    assert "left out, for want of room: reconstruction; summary.csv" in narrow.replace("\n", " ") and "L0" in narrow
    narrower = printed(dataset, 50).replace("\n", " ")
    assert "left out, for want of room: dead share, reconstruction; summary.csv" in narrower and "L0" in narrower
    row = next(line for line in wide.splitlines() if "relu" in line)
    cell = dataset["eval_explained_variance"].sel(rho=0.05, activation="relu")
    assert f"{float(cell.mean()):.3f}±{float(cell.std(ddof=1)):.3f}" in row
    assert "1 of 3" in wide and "2" in next(line for line in wide.splitlines() if "sigmoid" in line).split()


def test_where_codes_are_dense_the_table_says_nothing_of_active_units(dataset):
    activity = xr.DataArray(
        np.ones((2, 2, 3, 5)), dims=(*SIZES, "unit"), attrs={"kind": "measure", "long_name": "activity", "units": "1"}
    )
    dense = dataset.assign(eval_mean_activation=activity)
    dense["eval_l0"][:] = 5.0
    assert "L0" not in printed(dense) and "dead" not in printed(dense)
    dense["eval_l0"][0, 0, 0] = 4.0
    assert "L0" in printed(dense) and "dead share" in printed(dense)


@pytest.mark.parametrize(
    ("means", "expected"),
    [([0.8371], ".3f"), ([12.3, -0.1], ".1f"), ([0.0312], ".4f"), ([1e-9], ".3g"), ([0, np.nan], ".3f")],
)
def test_columns_have_the_digits_of_their_largest_mean(means, expected):
    assert digits_of(np.array(means)) == expected


def test_values_of_axes_are_selected_as_a_command_line_names_them(dataset):
    part = selected(dataset, ["rho=.05", "seed=0,2"])
    assert part["eval_l0"].dims == ("activation", "seed") and part["seed"].values.tolist() == [0, 2]
    xr.testing.assert_equal(part["eval_l0"], dataset["eval_l0"].sel(rho=0.05, seed=[0, 2]))
    assert selected(dataset, ["seed=1", "activation=RELU"])["eval_l0"].dims == ("rho", "seed")
    xr.testing.assert_identical(selected(dataset, ["beta=3"]), dataset)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rho"], "--select must be an axis with its values: got 'rho'"),
        (["rho="], "--select must be an axis with its values: got 'rho='"),
        (["roh=1"], "unknown axis roh: did you mean rho?"),
        (["rho=.3"], "--select: rho must be a value of the run: got '.3'; use one of 0.05, 0.1"),
        (["rho=x"], "--select: rho must be a value of the run: got 'x'"),
        (["beta=2"], "--select: beta must be a value of the run: got '2'; use one of 3"),
        (["rho=.05", "rho=.1"], "--select must name an axis once: got rho twice"),
    ],
)
def test_a_selection_that_the_run_does_not_have_is_refused(dataset, words, message):
    with pytest.raises(UserError) as refused:
        selected(dataset, words)
    assert str(refused.value).startswith(message)


def test_the_terminals_table_shows_values_as_they_are(dataset):
    text = printed(dataset.assign_coords(activation=["array:/d[/x].npy", "array:/[rho] :one:"]), 120)
    assert "array:/d[/x].npy " in text and "array:/[rho] :one: " in text


def test_a_value_of_several_lines_stays_in_its_row(dataset):
    named = dataset.assign_coords(activation=["a|b", "c\nd,e"])
    table = cell_table(named, measures=["eval_l0"])
    lines = as_markdown(table).splitlines()
    assert r"| a\|b |" in lines[2] and r"| c\nd,e |" in lines[3] and lines[-2] == ""
    assert pd.read_csv(io.StringIO(as_csv(table)))["activation"].tolist()[:2] == ["a|b", "c\nd,e"]

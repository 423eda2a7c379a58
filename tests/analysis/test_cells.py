"""Walking through a results Dataset."""

import numpy as np
import pytest

from sae_jax import sweep
from sae_jax.analysis.cells import (
    by_cell,
    cell_axes,
    cell_count,
    evenly,
    in_double_precision,
    lane_measures,
    name_of,
    shorts,
)
from sae_jax.storage.description import names_of_kind
from sae_jax.sweeps.lane_warnings import target

SHORT = {"d_hidden": 2, "batch_size": 32, "steps": 2}


@pytest.fixture(scope="module")
def dataset(samples):
    return sweep(samples, seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0], **SHORT)


def test_cells_come_with_their_settings(dataset):
    cells = by_cell(dataset)
    assert [point for point, _ in cells][:4] == [
        {"rho": 0.05, "beta": 0.5},
        {"rho": 0.05, "beta": 1.0},
        {"rho": 0.05, "beta": 2.0},
        {"rho": 0.1, "beta": 0.5},
    ]
    assert cells[3][1]["eval_l0"].dims == ("seed",)


def test_some_cells_may_be_chosen(dataset, samples):
    assert cell_count(dataset) == 6 and cell_count(sweep(samples, **SHORT)) == 1
    assert [point for point, _ in by_cell(dataset, chosen=[5, 1])] == [
        {"rho": 0.1, "beta": 2.0},
        {"rho": 0.05, "beta": 1.0},
    ]
    assert evenly(3, 5) == [0, 1, 2] and evenly(100, 3) == [0, 50, 99] and evenly(1, 1) == [0]


def test_axes_targets_and_names(dataset, samples):
    assert cell_axes(dataset) == ["rho", "beta"]
    np.testing.assert_allclose(target(dataset), [0.05, 0.1])
    alone = sweep(samples, rho=0.2, **SHORT)
    assert target(alone).item() == 0.2
    assert [name_of(point) for point, _ in by_cell(alone)] == [""]
    assert name_of({"rho": 0.05, "activation": "relu", "d_hidden": 4}) == "rho=0.05  activation=relu  d_hidden=4"


def test_floats_become_double_and_integers_stay(dataset):
    double = in_double_precision(dataset)
    assert double["loss"].dtype == "float64" and double["diverged_at"].dtype == "int32"
    np.testing.assert_array_equal(double["loss"], dataset["loss"])
    assert double["loss"].attrs == dataset["loss"].attrs


def test_a_target_is_there_only_where_it_is_a_setting(dataset):
    without = dataset.isel(rho=0, drop=True)
    assert target(dataset.isel(rho=0)).item() == 0.05
    assert target(without.assign_attrs(config='{"k": 4}')) is None and target(without.assign_attrs(config="{}")) is None


def test_measures_of_whole_lanes_are_taken_from_what_the_dataset_declares(dataset):
    whole = ["eval_reconstruction", "eval_explained_variance", "eval_l0", "eval_dead_fraction", "eval_mean_activation"]
    dataset = dataset.copy(deep=True)
    dataset["eval_l0"][:] = 1.0
    measures = lane_measures(dataset)
    assert list(measures) == whole
    assert all(measure.dims == ("rho", "beta", "seed") for measure in measures.values())
    assert measures["eval_mean_activation"].attrs["long_name"].endswith("mean over units")
    added = dataset.assign(eval_new=dataset["eval_l0"].assign_attrs(long_name="a new one"))
    assert "eval_new" in lane_measures(added) and "eval_new" in names_of_kind(added, "measure")
    assert not lane_measures(dataset.drop_vars(names_of_kind(dataset, "measure")))


def test_cells_need_no_particular_variable(dataset):
    for name in dataset.data_vars:
        if "seed" in dataset[name].dims:
            assert cell_axes(dataset[[name]]) == ["rho", "beta"] and len(by_cell(dataset[[name]])) == 6


def test_values_are_short_and_told_apart():
    assert shorts([0.1, 1.0, 12345678.0]) == ["0.1", "1", "1.23457e+07"]
    assert shorts([0.1234567, 0.1234568, 0.5]) == ["0.1234567", "0.1234568", "0.5"]
    assert shorts([0.1, np.nextafter(0.1, 1)]) == ["0.10000000000000001", "0.10000000000000002"]
    assert shorts(["relu", "topk"]) == ["relu", "topk"] and shorts([0.5, 0.5]) == ["0.5", "0.5"] and shorts([]) == []

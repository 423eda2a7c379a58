"""Walking through a results Dataset."""

import numpy as np
import pytest

from sae_jax import Config, sweep
from sae_jax.analysis.cells import by_cell, cell_axes, cell_count, evenly, in_double_precision, name_of, target

CONFIG = Config(d_hidden=2, batch_size=32, steps=2)


@pytest.fixture(scope="module")
def dataset(samples):
    return sweep(CONFIG, samples, seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0])


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
    assert cell_count(dataset) == 6 and cell_count(sweep(CONFIG, samples)) == 1
    assert [point for point, _ in by_cell(dataset, chosen=[5, 1])] == [
        {"rho": 0.1, "beta": 2.0},
        {"rho": 0.05, "beta": 1.0},
    ]
    assert evenly(3, 5) == [0, 1, 2] and evenly(100, 3) == [0, 50, 99] and evenly(1, 1) == [0]


def test_axes_targets_and_names(dataset, samples):
    assert cell_axes(dataset) == ["rho", "beta"]
    np.testing.assert_allclose(target(dataset), [0.05, 0.1])
    alone = sweep(CONFIG, samples, rho=0.2)
    assert target(alone).item() == 0.2
    assert [name_of(point) for point, _ in by_cell(alone)] == ["the only cell"]
    assert name_of({"rho": 0.05, "activation": "relu", "d_hidden": 4}) == "rho=0.05  activation=relu  d_hidden=4"


def test_floats_become_double_and_integers_stay(dataset):
    double = in_double_precision(dataset)
    assert double["loss"].dtype == "float64" and double["diverged_at"].dtype == "int32"
    np.testing.assert_array_equal(double["loss"], dataset["loss"])

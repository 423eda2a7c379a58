"""Axes of a sweep."""

import numpy as np
import pytest

from sae_jax.data.config import DataConfig
from sae_jax.settings import UserError
from sae_jax.sweeps.grid import ALL_SETTINGS, make_grid
from sae_jax.sweeps.sweep import sweep
from sae_jax.training.config import Config


def grid(seeds=1, **settings):
    return make_grid(Config(), DataConfig(), seeds, settings)


def test_sequences_are_axes_and_values_are_not():
    made = grid(seeds=[3, 5], rho=[0.1, 0.2], d_hidden=(4, 8), beta=2.0, dataset="digits", patch_size=[6, 8])
    assert made.lane_axes == {"rho": (0.1, 0.2)}
    assert made.program_axes == {"d_hidden": (4, 8), "patch_size": (6, 8)}
    assert made.shape == (2, 2) and made.seeds == (3, 5)
    assert made.fixed["beta"] == 2.0
    points = [(config.d_hidden, data.patch_size) for _, config, data in made.programs()]
    assert points == [(4, 6), (4, 8), (8, 6), (8, 8)]
    assert all(data.dataset == "digits" for _, _, data in made.programs())


def test_no_setting_is_named_like_a_variable_or_a_dimension_of_the_result(samples):
    result = sweep(Config(d_hidden=2, batch_size=8, steps=2), samples)
    assert not set(ALL_SETTINGS) & ({str(name) for name in result.variables} | {str(dim) for dim in result.dims})


def test_cells_run_through_the_last_axis_fastest():
    cells = grid(rho=[0.1, 0.2], beta=np.array([1, 2, 3])).cells()
    np.testing.assert_allclose(cells.rho, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(cells.beta, [1, 2, 3, 1, 2, 3])
    np.testing.assert_allclose(cells.momentum, [0.9] * 6, rtol=1e-6)
    assert grid().cells().rho.shape == (1,)
    assert grid(l1=[0.0, 0.1]).cells().l1.tolist() == [0, np.float32(0.1)]
    assert grid(l1=0.0).cells().l1 is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roh": 0.1}, "unknown setting roh: did you mean rho?"),
        ({"rho": [0.1, 1.5]}, r"rho must be in \[1e-06, 0.999999\]: got 1.5"),
        ({"rho": []}, "rho needs at least one value"),
        ({"rho": [0.1, 0.1]}, "rho must not name a value twice"),
        ({"rho": float("nan")}, "rho must be a finite number: got nan"),
        ({"rho": True}, "rho must be a finite number: got True"),
        ({"beta": float("inf")}, "beta must be a finite number: got inf"),
        ({"beta": -1}, "beta must be >= 0: got -1"),
        ({"d_hidden": 2.5}, "d_hidden must be a whole number: got 2.5"),
        ({"d_hidden": [4, 0]}, "d_hidden must be >= 1: got 0"),
        ({"activation": "sigmiod"}, "did you mean sigmoid?"),
        ({"tied": 3}, "tied must be True or False: got 3"),
        (
            {"reconstruction_loss": ["squared_error", "bernoulli"], "output": ["sigmoid", "linear"]},
            "needs probabilities",
        ),
        ({"seeds": 0}, "seeds must be a number in .1, 1000000."),
        ({"seeds": [1, 1]}, "seeds must be different whole numbers"),
        ({"seeds": 5_000_000_000}, "seeds must be a number in .1, 1000000."),
        ({"seeds": [0.5, 1.5]}, "seeds must be different whole numbers"),
        ({"seeds": [2**32]}, "seeds must be different whole numbers"),
        ({"seeds": [-1]}, "seeds must be different whole numbers"),
        ({"seeds": []}, "got none"),
    ],
)
def test_bad_settings_are_refused_in_words(settings, message):
    with pytest.raises(UserError, match=message):
        grid(**settings)

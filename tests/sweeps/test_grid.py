"""Axes of a sweep."""

import jax
import numpy as np
import pytest

from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC
from sae_jax.settings import UserError
from sae_jax.sweeps.grid import fields_of, make_grid
from sae_jax.sweeps.sweep import sweep


def grid(seeds=1, **settings):
    return make_grid("classic", DataConfig(), seeds, settings)


def cells(**settings):
    """The settings of all cells of a sweep of a single program."""
    [(_, lanes, _)] = grid(**settings).programs()
    return lanes


def test_sequences_are_axes_and_values_are_not():
    made = grid(seeds=[3, 5], rho=[0.1, 0.2], d_hidden=(4, 8), beta=2.0, dataset="digits", patch_size=[6, 8])
    assert made.lane_axes == {"rho": (0.1, 0.2)}
    assert made.program_axes == {"d_hidden": (4, 8), "patch_size": (6, 8)}
    assert made.shape == (2, 2) and made.seeds == (3, 5)
    assert made.fixed["beta"] == 2.0
    points = [(lanes.model.d_hidden, data.patch_size) for _, lanes, data in made.programs()]
    assert points == [(4, 6), (4, 8), (8, 6), (8, 8)]
    assert all(data.dataset == "digits" for _, _, data in made.programs())


def test_no_setting_is_named_like_a_variable_or_a_dimension_of_the_result(samples):
    result = sweep(samples, d_hidden=2, batch_size=8, steps=2)
    assert not set(fields_of(CLASSIC)) & ({str(name) for name in result.variables} | {str(dim) for dim in result.dims})


def test_cells_run_through_the_last_axis_fastest():
    lanes = cells(rho=[0.1, 0.2], beta=np.array([1, 2, 3]))
    np.testing.assert_allclose(lanes.model.rho, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(lanes.model.beta, [1, 2, 3, 1, 2, 3])
    np.testing.assert_allclose(lanes.training.momentum, [0.9] * 6, rtol=1e-6)
    assert all(leaf.shape == (6,) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(lanes))
    assert cells().model.rho.shape == (1,)
    assert cells(l1=[0.0, 0.1]).model.l1.tolist() == [0, np.float32(0.1)]
    assert cells(l1=0.0).model.l1 is None and cells(k=[0, 3], contractive=0).model.k.tolist() == [0, 3]


def test_what_is_off_in_one_program_is_off_there_alone():
    made = grid(d_hidden=[4, 8], l1=[0.0, 0.1])
    assert all(lanes.model.l1 is not None and lanes.model.contractive is None for _, lanes, _ in made.programs())


def test_cells_stand_where_the_axes_say():
    made = grid(seeds=2, beta=[1, 2, 3], d_hidden=[4, 8], rho=[0.1, 0.2])
    array = np.zeros((3, 2, 2), int)
    for number, (point, lanes, _) in enumerate(made.programs()):
        array[made.position(point, np.arange(6))] = np.arange(6) + 10 * number
        assert lanes.model.d_hidden == point["d_hidden"] == (4, 8)[number]
    assert array[:, 0].tolist() == [[0, 1], [2, 3], [4, 5]] and array[:, 1].tolist() == [[10, 11], [12, 13], [14, 15]]


def test_the_settings_are_recorded_by_name_with_the_model():
    recorded = grid(seeds=[3, 5], rho=[0.1, 0.2], dataset="digits").as_json()
    assert recorded["model"] == "classic" and recorded["seeds"] == [3, 5]
    assert recorded["rho"] == [0.1, 0.2] and recorded["dataset"] == "digits" and recorded["steps"] == 10_000
    assert set(recorded) == set(fields_of(CLASSIC)) | {"model", "seeds"}


def test_unknown_models_are_refused():
    with pytest.raises(UserError, match=r"unknown model clasic: did you mean classic\?"):
        make_grid("clasic", DataConfig(), 1, {})


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

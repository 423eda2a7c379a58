"""Axes of a sweep."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import struct

from sae_jax.commands.flags import parse
from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC
from sae_jax.settings import NON_NEGATIVE, UserError, swept
from sae_jax.sweeps.grid import fields_of, make_grid
from sae_jax.sweeps.sweep import sweep
from sae_jax.training.config import TrainingSettings, lane_settings


def grid(seeds=1, **settings):
    return make_grid("classic", DataConfig(), seeds, settings)


def cells(**settings):
    """The settings of all cells of a sweep of a single program."""
    [(_, lanes, _)] = grid(**settings).programs()
    return lanes


def test_sequences_are_axes_and_values_are_not():
    made = grid(seeds=[3, 5], rho=[0.1, 0.2], d_hidden=(4, 8), beta=2.0, dataset="digits", patch_size=[6, 8])
    assert made.lane_dims == {"rho": 2} and made.program_dims == {"d_hidden": 2, "patch_size": 2}
    assert made.axes == {"rho": (0.1, 0.2), "d_hidden": (4, 8), "patch_size": (6, 8)} == made.labels
    assert made.shape == (2, 2) and made.seeds == (3, 5)
    assert made.fixed["beta"] == 2.0
    points = [(lanes.model.d_hidden, data.patch_size) for _, lanes, data in made.programs()]
    assert points == [(4, 6), (4, 8), (8, 6), (8, 8)]
    assert all(data.dataset == "digits" for _, _, data in made.programs())


def test_no_setting_is_named_like_a_variable_or_a_dimension_of_the_result(samples):
    result = sweep(samples, d_hidden=2, batch_size=8, steps=2)
    assert not set(fields_of(CLASSIC)) & ({str(name) for name in result.data_vars} | {str(dim) for dim in result.dims})


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


def test_paired_settings_are_one_dimension_whose_cells_have_the_values_of_one_place():
    made = make_grid(
        "classic",
        DataConfig(),
        1,
        {"tied": [False, True], "rho": [0.1, 0.2, 0.1], "beta": [3, 1, 0.5]},
        ("beta", "rho"),
    )
    assert made.dims == {"tied": ("tied",), "rho_beta": ("rho", "beta")}
    assert made.labels["rho_beta"] == ("0.1, 3", "0.2, 1", "0.1, 0.5")
    for tied, (point, lanes, _) in zip((False, True), made.programs(), strict=True):
        assert point == {"tied": tied} and lanes.model.tied is tied
        np.testing.assert_allclose(lanes.model.rho, [0.1, 0.2, 0.1], rtol=1e-6)
        np.testing.assert_allclose(lanes.model.beta, [3, 1, 0.5])
    crossed = [(index, values["tied"], values["rho"], values["beta"]) for index, values in made.cells()]
    assert crossed[:2] == [((0, 0), False, 0.1, 3), ((0, 1), False, 0.2, 1)] and len(crossed) == 6


def test_a_paired_setting_that_changes_the_program_makes_a_program_of_every_place():
    made = make_grid(
        "classic", DataConfig(), 1, {"d_hidden": [4, 8], "beta": [3, 1], "rho": [0.1, 0.2]}, ("d_hidden", "beta")
    )
    assert made.program_dims == {"d_hidden_beta": 2} and made.lane_dims == {"rho": 2}
    pairs = [(lanes.model.d_hidden, lanes.model.beta.tolist()) for _, lanes, _ in made.programs()]
    assert pairs == [(4, [3, 3]), (8, [1, 1])]


@pytest.mark.parametrize(
    ("zip", "message"),
    [
        (("rho", "bta"), "unknown setting bta: did you mean beta"),
        (("rho", "beta"), "zip pairs settings of as many values: got 3 of rho, 2 of beta; give each as many"),
        (("rho", "momentum"), "zip pairs settings of several values: got momentum, which has one; give it several"),
        (("rho",), "zip must name several settings, each once: got rho; name those to pair"),
        (("rho", "rho"), "zip must name several settings, each once: got rho, rho"),
        (("k", "warmup"), "zip must not make a name of another setting: got k_warmup; give warmup before k"),
        (("rho", "k"), "zip rho_k must not name one twice: got 0.1, 0, 0.1, 0, 0.2, 3; leave one"),
    ],
)
def test_what_cannot_be_paired_is_refused_in_words(zip, message):
    settings = {"rho": [0.1, 0.1, 0.2], "beta": [1, 2], "k": [0, 0, 3], "warmup": [0.1, 0.2, 0.3]}
    with pytest.raises(UserError, match=message):
        make_grid("classic", DataConfig(), 1, {name: settings.get(name, 0.5) for name in (*settings, *zip)}, zip)


def test_the_settings_are_recorded_by_name_with_the_model():
    recorded = grid(seeds=[3, 5], rho=[0.1, 0.2], dataset="digits").as_json()
    assert recorded["model"] == "classic" and recorded["seeds"] == [3, 5]
    assert recorded["rho"] == [0.1, 0.2] and recorded["dataset"] == "digits" and recorded["steps"] == 20_000
    assert set(recorded) == set(fields_of(CLASSIC)) | {"model", "seeds"}


def test_a_setting_of_a_model_never_replaces_one_of_the_training():
    @struct.dataclass
    class Settings(CLASSIC.Settings):
        noise: Any = swept(0.0, NON_NEGATIVE, "another noise")

    with pytest.raises(UserError, match=r"must have a name of its own: got noise of model classic, .*; rename it"):
        make_grid(CLASSIC._replace(Settings=Settings), DataConfig(), 1, {})


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


def test_an_optimizer_may_have_its_own_number_of_steps():
    exact = {"estimator": "batch"}
    assert grid().fixed["steps"] == lane_settings().training.steps == TrainingSettings().steps
    assert grid(optimizer="lbfgs", **exact).fixed["steps"] == 400
    assert lane_settings(optimizer="lbfgs", **exact).training.steps == 400
    assert grid(optimizer=["lbfgs"], **exact).as_json()["steps"] == 400
    assert grid(optimizer="lbfgs", steps=7, **exact).fixed["steps"] == 7
    with pytest.raises(UserError, match="steps must be given where optimizers take different numbers of them"):
        grid(optimizer=["adam", "lbfgs"], **exact)
    assert grid(optimizer=["adam", "lbfgs"], steps=7, **exact).fixed["steps"] == 7


def test_a_command_line_gives_a_sweep_only_what_it_names():
    _, settings, _ = parse(["--optimizer", "lbfgs", "--estimator", "batch"], "x", "", {"rho": (0.05,)}, several=True)
    assert settings == {"model": "classic", "optimizer": "lbfgs", "estimator": "batch", "rho": 0.05}


def test_a_batch_size_that_nothing_would_read_is_refused(samples):
    exact = {"d_hidden": 2, "estimator": "batch", "steps": 2}
    with pytest.raises(UserError, match="batch_size must be left out beside optimizer lbfgs, which takes all samples"):
        sweep(samples, optimizer="lbfgs", batch_size=8, **exact)
    assert sweep(samples, optimizer=["adam", "lbfgs"], batch_size=8, **exact).sizes["optimizer"] == 2

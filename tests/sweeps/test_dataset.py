"""A Dataset says of each of its variables what it is, and of itself what was trained."""

import json

import numpy as np
import pytest

from sae_jax import CLASSIC, Measure, Term, as_data, sweep
from sae_jax.data.normalise import STORED
from sae_jax.sweeps.grid import fields_of

SETTINGS = {"d_hidden": 3, "batch_size": 32, "steps": 4}
LANES = ("rho", "seed")
DESCRIPTION = ("long_name", "units", "kind")


@pytest.fixture(scope="module")
def dataset(samples):
    return sweep(samples, seeds=2, rho=[0.05, 0.1], l1=0.01, **SETTINGS)


def test_every_variable_has_a_label_units_and_a_kind(dataset):
    kinds = {}
    for name, variable in dataset.data_vars.items():
        assert all(isinstance(variable.attrs[key], str) and variable.attrs[key] for key in DESCRIPTION)
        kinds.setdefault(variable.attrs["kind"], set()).add(name)
    measures = ["reconstruction", "explained_variance", "l0", "dead_fraction", "firing_rate"]
    assert kinds == {
        "curve": {"loss", "loss_reconstruction", "loss_kl", "loss_weight_decay", "loss_l1"},
        "measure": {f"eval_{name}" for name in [*measures, "mean_activation", "max_activation"]},
        "status": {"diverged_at", "stopped_at", "image_height", "image_width"},
        "parameter": {"encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"},
        "data": {"input_gamma", *(name for name, _, _ in STORED.values())},
    }
    for coordinate in dataset.coords.values():
        assert all(coordinate.attrs[key] and isinstance(coordinate.attrs[key], str) for key in DESCRIPTION[:2])


@pytest.mark.parametrize(
    ("kind", "dims"),
    [
        ("curve", [("step",)]),
        ("measure", [(), ("unit",)]),
        ("parameter", [("unit",), ("input",), ("unit", "input")]),
    ],
)
def test_variables_of_lanes_stand_over_the_axes_then_seed_then_their_own_dimensions(dataset, kind, dims):
    of_kind = [variable for variable in dataset.data_vars.values() if variable.attrs["kind"] == kind]
    assert of_kind and {variable.dims for variable in of_kind} == {(*LANES, *own) for own in dims}


def test_the_firing_rate_of_every_unit_agrees_with_l0_and_the_dead(dataset):
    rate = dataset["eval_firing_rate"]
    assert rate.dims == (*LANES, "unit") and rate.dtype == np.float32
    assert "share of held-out samples on which a unit is active; active: code > 0.1" in rate.attrs["long_name"]
    np.testing.assert_allclose(rate.sum("unit"), dataset["eval_l0"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((rate == 0).mean("unit"), dataset["eval_dead_fraction"], rtol=1e-6)


def test_a_dataset_names_its_settings_axes_samples_and_format(dataset, samples):
    assert json.loads(dataset.attrs["axes"]) == ["rho"] and dataset.attrs["format"] == 2
    assert json.loads(dataset.attrs["config"]) == {"model": "classic"}
    assert json.loads(dataset.attrs["settings"]) == list(fields_of(CLASSIC))
    assert dataset["l1"].item() == 0.01 and dataset["steps"].item() == 4
    assert json.loads(dataset["data_summary"].item()) == as_data(samples).summary


def test_every_setting_is_a_coordinate(dataset):
    assert set(fields_of(CLASSIC)) <= set(dataset.coords)
    expected = {"beta": 1.0, "steps": 4, "activation": "sigmoid", "tied": False, "dataset": "array", "classes": ""}
    assert {name: dataset[name].item() for name in expected} == expected
    assert all(dataset[name].dims == () for name in expected) and dataset["rho"].dims == ("rho",)
    assert dataset["steps"].attrs == {
        "long_name": "training steps; left out, lbfgs takes 400 iterations; 0 measures what start_from names",
        "units": "step",
    }


def test_a_term_and_a_measure_declared_elsewhere_are_variables_with_their_labels(samples):
    def loss(params, state, step, settings):
        terms, seen = CLASSIC.loss(params, state, step, settings)
        return terms | {"bias": (params["encoder_bias"] ** 2).sum()}, seen

    largest = Measure(lambda lane: lane.codes.max(axis=0), "largest code", "m", ("unit",))
    mine = CLASSIC._replace(
        name="mine",
        loss=loss,
        terms=lambda s: CLASSIC.terms(s) | {"bias": Term("squared encoder bias", "bit")},
        measures=lambda s: CLASSIC.measures(s) | {"largest": largest},
    )
    made = sweep(samples, mine, rho=[0.05, 0.1], learning_rate=0.05, **SETTINGS)
    curve, measure = made["loss_bias"], made["eval_largest"]
    window = "mean since the step logged before"
    assert [curve.attrs[key] for key in DESCRIPTION] == [f"squared encoder bias, {window}", "bit", "curve"]
    assert [measure.attrs[key] for key in DESCRIPTION] == ["largest code", "m", "measure"]
    assert measure.dims == (*LANES, "unit") and np.all(measure > 0) and np.all(curve[..., 1:] > 0)
    terms = sum(made[name] for name in made.data_vars if str(name).startswith("loss_"))
    np.testing.assert_allclose(terms, made["loss"], rtol=1e-6)

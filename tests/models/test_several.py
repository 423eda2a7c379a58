"""Several architectures in one sweep: an axis like any other, whose lanes are those of each alone."""

import numpy as np
import pytest

import sae_jax
from sae_jax.data import DataConfig
from sae_jax.models import MODELS, model_of
from sae_jax.models.several import chosen
from sae_jax.settings import UserError, settings_of
from sae_jax.sweeps.grid import along_models, make_grid
from sae_jax.sweeps.reading import grid_of
from tests.watching import Watcher

SMALL = {"d_hidden": 6, "steps": 30, "batch_size": 32, "seeds": 2}
NAMES = ["relu", "topk", "batch_topk", "jumprelu", "gated"]


@pytest.fixture(scope="module")
def together(samples):
    return sae_jax.sweep(samples, NAMES, target_l0=[2.0, 3.0], learning_rate=1e-3, **SMALL)


def test_the_architecture_is_the_first_dimension(together):
    assert dict(together["eval_l0"].sizes) == {"model": 5, "target_l0": 2, "seed": 2}
    assert together["model"].values.tolist() == NAMES
    # Defaults that differ between architectures lie along it.
    assert together["rows"].dims == ("model",)
    assert together["rows"].sel(model="gated").item() == "unit" != together["rows"].sel(model="relu").item()


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_equals_that_of_the_architecture_alone(name, together, samples):
    alone = sae_jax.sweep(samples, name, target_l0=3.0, learning_rate=1e-3, **SMALL)
    lanes = together.sel(model=name, target_l0=3.0)
    for variable in alone.data_vars:
        np.testing.assert_allclose(lanes[variable], alone[variable], rtol=2e-4, atol=2e-6, err_msg=variable)
    absent = set(MODELS["gated"].parameters(MODELS["gated"].Settings())) - set(alone.data_vars)
    assert all(lanes[variable].isnull().all() for variable in absent)


def test_a_part_of_it_is_read_as_what_it_is(together):
    part = together.sel(model=["topk", "relu"])
    grid = grid_of(part)
    assert grid.dims["model"][0] == "model" and grid.axes["model"] == ("topk", "relu")
    lane = sae_jax.open(part).lane(model="topk", target_l0=2.0, seed=1)
    assert lane.settings.architecture is MODELS["topk"]
    np.testing.assert_array_equal(np.sum(lane.encode(np.ones((3, 16), np.float32)) != 0, axis=1) <= 2, True)


def test_what_an_architecture_does_not_have_is_trained_once(samples):
    watcher = Watcher()
    dataset = sae_jax.sweep(samples, ["topk", "relu"], k=[1, 2], l1=[0.1, 0.2], observers=[watcher], **SMALL)
    assert dict(dataset["loss"].sizes) | {"step": 0} == {"model": 2, "k": 2, "l1": 2, "seed": 2, "step": 0}
    lines = [line for line in watcher.lines if "trained once" in line]
    assert len(lines) == 2 and all(line.startswith("4 of 16 lanes differ only in ") for line in lines)
    np.testing.assert_array_equal(dataset["loss"].sel(model="topk", l1=0.1), dataset["loss"].sel(model="topk", l1=0.2))
    np.testing.assert_array_equal(dataset["loss"].sel(model="relu", k=1), dataset["loss"].sel(model="relu", k=2))


def test_a_record_of_several_has_every_setting_of_each():
    both = model_of(["classic", "topk"])
    assert model_of("classic+topk") is both
    names = set(settings_of(both.Settings))
    assert names == {"model"} | set(settings_of(MODELS["classic"].Settings)) | set(settings_of(MODELS["topk"].Settings))
    assert along_models(both)["k"] == (0, MODELS["topk"].Settings().k)
    model, own = chosen(both.choices, both.Settings(model="topk", k=3.0, k_warmup=0.2))
    assert model is MODELS["topk"] and own == MODELS["topk"].Settings(k=3.0, k_warmup=0.2)


@pytest.mark.parametrize("names", [["classic", "relu"], ["relu", "classic"]])
def test_what_leaves_a_term_of_one_model_out_is_a_number_of_another(names):
    of_each = own_settings(names, l1=0.0)
    assert of_each["classic"].l1 is None and np.all(of_each["relu"].l1 == 0)
    # Where a target is the rounds of another model, a number of it stands in every program.
    assert own_settings(["matching_pursuit", "relu"], target_l0=0)["relu"].target_l0 is None


def own_settings(names, **settings):
    """Of several models, each one's own settings."""
    programs = make_grid(names, DataConfig(), 1, settings).programs()
    return {point["model"]: chosen(model_of(names).choices, lanes.model)[1] for point, lanes, _ in programs}


@pytest.mark.parametrize(
    ("names", "k", "reason"),
    [
        (["classic", "batch_topk"], [0, 2], "model batch_topk: k must be > 0: got 0.0; the default is 8"),
        (["topk", "classic"], 2.5, "model classic: k must be a whole number: got 2.5; the default is 0"),
    ],
)
def test_values_that_one_of_the_models_does_not_take_are_refused(names, k, reason, samples):
    with pytest.raises(UserError, match=f"^{reason}$"):
        sae_jax.sweep(samples, names, k=k, **SMALL)


def test_a_setting_that_models_describe_in_different_ways_is_described_by_what_they_share():
    fields = settings_of(model_of(["relu", "jumprelu", "topk", "matching_pursuit"]).Settings)
    assert fields["target_l0"].metadata["help"] == "active units per sample"
    assert fields["k"].metadata["help"] == settings_of(MODELS["topk"].Settings)["k"].metadata["help"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["topk", "topk"], "model must not name one twice: got topk, topk; leave one"),
        (["topk", "relo"], "unknown model relo: did you mean relu?"),
        ([], "model must be the name of a model"),
    ],
)
def test_what_is_no_choice_of_architectures_is_refused(names, reason, samples):
    with pytest.raises(UserError, match=reason.replace("?", r"\?")):
        sae_jax.sweep(samples, names, **SMALL)

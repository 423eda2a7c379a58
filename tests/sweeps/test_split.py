"""Lanes that differ only in what they do not read are trained once, and are what their solo runs are."""

from types import SimpleNamespace

import numpy as np
import pytest

from sae_jax import CLASSIC, DataConfig, as_data, load, sweep
from sae_jax.data.config import DataConfig as Declared
from sae_jax.models import MODELS, model_of
from sae_jax.settings import settings_of
from sae_jax.sweeps import split as splits
from sae_jax.sweeps.grid import fields_of
from sae_jax.training.config import TrainingSettings
from tests.watching import Watcher

SETTINGS = {"d_hidden": 3, "batch_size": 20, "steps": 12}
# By a setting and its value, other settings under which the rule is tried, with two values of all that is not read.
TRIED = {
    ("beta", 0): {
        "patience": 2,
        "rho": [0.05, 0.3],
        "beta_warmup": [0.1, 0.9],
        "ema_decay": [0.5, 0.9],
        "estimator": ["ema", "batch"],
        "ema_start": ["rho", "zero"],
    },
    ("estimator", "batch"): {"beta": 2.0, "ema_decay": [0.5, 0.9], "ema_start": ["rho", "zero"]},
    ("k", 0): {"patience": 2, "k_warmup": [0.1, 0.9], "k_start": [0, 2], "k_factor": [1.0, 0.5]},
    ("k_warmup", 0): {"patience": 2, "k": 2, "k_start": [0, 3]},
    ("average_sparsity", 0): {"partial_sparsity": 0.1, "average_target": [0.01, 0.9]},
    ("corruption", "none"): {"noise": [0.1, 0.3]},
    ("optimizer", "adam"): {"momentum": [0.1, 0.9], "history_size": [2, 5]},
    ("optimizer", "sgd"): {"history_size": [2, 5]},
    ("optimizer", "lbfgs"): {
        "estimator": "batch",
        "steps": 5,
        "momentum": [0.1, 0.9],
        "learning_rate": [0.001, 0.1],
        "warmup": [0.1, 0.9],
        "final_learning_rate": [0.0, 0.5],
        "clip_norm": [0.0, 0.01],
        "batch_size": [10, 20],
    },
}


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples[:200])


def test_every_declared_rule_is_tried():
    rules = {**CLASSIC.Settings.UNREAD, **TrainingSettings.UNREAD}
    assert rules.keys() == TRIED.keys()
    for rule, names in rules.items():
        assert {name for name, value in TRIED[rule].items() if isinstance(value, list)} == set(names)


@pytest.mark.parametrize("rule", TRIED, ids=lambda rule: f"{rule[0]} {rule[1]}")
def test_what_is_declared_as_not_read_changes_nothing(rule, data, monkeypatch):
    monkeypatch.setattr(splits, "unread", lambda rules, values: {})
    # A batch size beside lbfgs alone is refused; beside adam as well it is not read there.
    monkeypatch.setattr("sae_jax.sweeps.prepare.check_given", lambda settings: None)
    settings = SETTINGS | {rule[0]: rule[1]} | TRIED[rule]
    made = sweep(data, **settings)
    lanes = [name for name, value in TRIED[rule].items() if isinstance(value, list)]
    for name, variable in made.data_vars.items():
        if "seed" in variable.dims:
            first = variable.isel(dict.fromkeys(lanes, 0))
            np.testing.assert_allclose(variable, first.broadcast_like(variable), rtol=1e-5, atol=1e-6, err_msg=name)


def test_settings_of_the_data_that_are_not_read_change_nothing():
    tried = {"data_dir": "nowhere", "patch_size": 4, "whiten": False, "subtract_mean": "global"}
    for (other, value), names in Declared.UNREAD.items():
        kind = {other: value} if value in ("patches", "digits") else {"dataset": "digits", other: value}
        if other == "normalize" or value in ("patches", "digits"):
            small = DataConfig(**{"samples": 50} | kind)
            for name in names:
                changed = DataConfig(**{"samples": 50, name: tried[name]} | kind)
                np.testing.assert_array_equal(load(changed).train, load(small).train)


def test_lanes_that_do_not_read_what_they_differ_in_are_trained_once(data):
    watching = Watcher()
    axes = {"corruption": ["none", "gaussian"], "noise": [0.1, 0.2, 0.3], "rho": [0.05, 0.1]}
    made = sweep(data, seeds=2, observers=[watching], **axes, **SETTINGS)
    said = "8 of 24 lanes differ only in noise, which corruption none does not read: trained once"
    assert said in watching.lines and len(watching.lanes) == 16
    silent, noisy = made.sel(corruption="none"), made.sel(corruption="gaussian")
    for name in ("loss", "eval_reconstruction", "encoder_weight", "diverged_at"):
        np.testing.assert_array_equal(silent[name].sel(noise=0.1), silent[name].sel(noise=0.3))
    assert np.all(noisy["loss"].sel(noise=0.1) != noisy["loss"].sel(noise=0.3))
    alone = sweep(data, seeds=[1], corruption="none", noise=0.3, rho=0.1, **SETTINGS)
    for name in ("loss", "encoder_weight", "eval_mean_activation"):
        there = silent[name].sel(noise=0.3, rho=0.1, seed=[1])
        np.testing.assert_allclose(there, alone[name], rtol=1e-5, atol=1e-6)


def unread_of(models, **values):
    """What is not read of these values and of every other setting's default."""
    model = model_of(models)
    defaults = {name: field.default for name, field in fields_of(model).items()}
    return splits.unread_in(SimpleNamespace(model=model), {**defaults, **values})


def test_what_one_model_does_not_read_others_do():
    names = ("relu", "batch_topk", "batch_topk:frozen=encoder", "jumprelu")
    relu, *others = (unread_of(names, model=name, frozen="encoder", penalty="tanh") for name in names)
    assert relu["target_l0"] == "frozen" and "l1" not in relu
    assert [one.get("target_l0") for one in others] == [None, None, "penalty"]
    assert [one["l1"] for one in others] == ["model"] * 3 and others[0] == others[1]
    # Whose sum is rounded otherwise after another start.
    assert "k_start" not in unread_of("batch_topk", k_warmup=0.0, k=1.3)
    # A target is read by the penalty on firing rates, whatever penalty is on L0.
    assert "target_l0" not in unread_of("jumprelu", penalty="tanh", target_rate=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_several_reads_what_it_reads_alone(model):
    settings = {name: field.default for name, field in settings_of(MODELS[model].Settings).items()}
    for rule in MODELS[model].Settings.UNREAD:
        given = {**settings, **dict(zip(rule[::2], rule[1::2], strict=True))}
        alone, among = unread_of(model, **given), unread_of(tuple(MODELS), model=model, **given)
        assert alone == {one: other for one, other in among.items() if one in settings or one in alone}


def test_whole_programs_that_are_equal_are_trained_once(data):
    watching = Watcher()
    made = sweep(data, estimator=["batch", "ema"], ema_start=["rho", "zero"], observers=[watching], **SETTINGS)
    assert len([line for line in watching.lines if line.startswith("plan: ")]) == 3
    batch = made.sel(estimator="batch")
    np.testing.assert_array_equal(batch["loss"].sel(ema_start="rho"), batch["loss"].sel(ema_start="zero"))
    assert np.isfinite(made["loss"]).all()


def test_a_setting_without_effect_at_one_value_is_still_trained_at_each(data):
    watching = Watcher()
    sweep(data, l1=[0.0, 0.1], k=[0, 2], k_warmup=[0.2, 0.5], observers=[watching], **SETTINGS)
    assert len(watching.lanes) == 6
    assert [line for line in watching.lines if "trained once" in line] == [
        "2 of 8 lanes differ only in k_warmup, which k 0 does not read: trained once"
    ]


def test_a_model_of_ones_own_is_taken_to_read_all_of_its_settings(data):
    def loss(params, state, step, s):
        terms, seen = CLASSIC.loss(params, state, step, s)
        return terms | {"weight_decay": terms["weight_decay"] * s.rho}, seen

    made = sweep(data, CLASSIC._replace(loss=loss), beta=0.0, rho=[0.1, 0.9], weight_decay=1.0, **SETTINGS)
    assert np.all(made["loss"].isel(rho=0) != made["loss"].isel(rho=1))

"""Declared settings: ranges, conversions, messages."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC
from sae_jax.settings import (
    CLOSED_UNIT,
    HALF_OPEN_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    UserError,
    check,
    flag,
    one_of,
    settings_of,
    unknown,
)
from sae_jax.sweeps.grid import checked_seeds
from sae_jax.training.config import TrainingSettings, declared, lane_settings


@pytest.mark.parametrize(
    ("within", "inside", "outside", "words"),
    [
        (Range(low=0, high=1, low_open=True, high_open=True), [0.01, 0.99], [0, 1, -1], "in (0, 1)"),
        (CLOSED_UNIT, [0, 1], [-0.01, 1.01], "in [0, 1]"),
        (HALF_OPEN_UNIT, [0, 0.99], [1, -0.1], "in [0, 1)"),
        (POSITIVE, [1e-9, 1e30], [0], "> 0"),
        (NON_NEGATIVE, [0, 5], [-1e-9], ">= 0"),
        (one_of(["a", "b"]), ["a"], ["c"], "one of a, b"),
    ],
)
def test_ranges_admit_and_say_what_they_say(within, inside, outside, words):
    assert all(value in within for value in inside)
    assert not any(value in within for value in outside)
    assert str(within) == words


@pytest.mark.parametrize("owner", [CLASSIC.Settings, TrainingSettings, DataConfig])
def test_every_default_lies_in_its_own_range_and_has_help(owner):
    for name, field in settings_of(owner).items():
        assert check(field, field.default) == field.default, name
        assert check(field, str(field.default)) == field.default, name
        assert field.metadata["help"] and field.metadata["unit"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("rho", 0.99999999), ("rho", 1e-9), ("rho", 0.0), ("learning_rate", 1e-46), ("learning_rate", 1e39)],
)
def test_values_that_single_precision_moves_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be"):
        check(declared(CLASSIC)[name], value)


@pytest.mark.parametrize(
    ("name", "ends"), [("rho", (1e-6, 1 - 1e-6)), ("momentum", (0, 0.9999999)), ("heldout", (0.5,))]
)
def test_the_ends_of_a_range_are_admitted_in_the_precision_that_is_trained_with(name, ends):
    fields = declared(CLASSIC) | settings_of(DataConfig)
    assert [check(fields[name], str(end)) for end in ends] == list(ends)


def test_messages_say_what_single_precision_makes_of_a_value_and_the_default_that_holds():
    with pytest.raises(
        UserError, match=r"momentum must be in \[0, 1\): got 0.99999999, which is 1 in single precision;"
    ):
        lane_settings(momentum=0.99999999)
    with pytest.raises(UserError, match=r"rho must be in .*: got 2; the default is 0.1 0.3$"):
        check(declared(CLASSIC)["rho"], 2, default=(0.1, 0.3))


@pytest.mark.parametrize("value", [np.float32(0.25), np.array(0.25), jnp.float32(0.25), "0.25"])
def test_numbers_of_other_libraries_are_numbers(value):
    assert lane_settings(rho=value).model.rho == 0.25


@pytest.mark.parametrize("value", [np.ma.masked, np.complex64(0.25), np.datetime64("2020"), np.array([0.25]), np.True_])
def test_what_only_looks_like_a_number_is_refused(value):
    with pytest.raises(UserError, match=r"^rho must be a finite number: got .*; the default is 0.02$"):
        lane_settings(rho=value)


def test_values_take_the_declared_type():
    settings = lane_settings(d_hidden="12", tied="True", steps=1e3)
    assert (settings.model.d_hidden, settings.model.tied, settings.training.steps) == (12, True, 1000)
    assert isinstance(settings.training.steps, int)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.training.steps = 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_hidden": 0}, "d_hidden must be >= 1: got 0; the default is 49"),
        ({"steps": 10**5000}, "steps must be at most .*: got a number of thousands of digits; the default is"),
        ({"steps": -(10**5000)}, "steps must be >= .*: got a number of thousands of digits; the default is"),
        (
            {"learning_rate": 10**5000},
            "learning_rate must be a finite number: got a number of thousands of digits; the default is",
        ),
        ({"activation": 10**5000}, "activation must be text: got a number of thousands of digits; the default is"),
        ({"d_hidden": "many"}, "d_hidden must be a whole number: got 'many'"),
        ({"d_hidden": True}, "d_hidden must be a whole number: got True"),
        ({"d_hidden": float("inf")}, "d_hidden must be a whole number: got inf"),
        ({"activation": "reluu"}, "activation must be one of .*; did you mean relu?"),
        ({"tied": "maybe"}, "tied must be True or False: got 'maybe'"),
    ],
)
def test_errors_say_the_rule_the_value_and_the_fix(settings, message):
    with pytest.raises(UserError, match=message):
        lane_settings(**settings)


def test_seeds_of_thousands_of_digits_are_refused():
    for seeds in (10**5000, [10**5000]):
        with pytest.raises(UserError, match=r"seeds must be .*: got a number of thousands of digits; "):
            checked_seeds(seeds)


def test_text_that_no_file_could_hold_is_refused():
    with pytest.raises(UserError, match=r"dataset must be text in UTF-8: got 'array:a.udcff'; rename what it names"):
        DataConfig(dataset="array:a\udcff")


def test_names_are_spelt_for_the_command_line_and_guessed_when_mistyped():
    assert flag("ema_decay") == "--ema-decay"
    assert str(unknown("flag", "--roh", ["--rho", "--beta"])) == "unknown flag --roh: did you mean --rho?"
    assert str(unknown("flag", "--zzz", ["--rho", "--beta"])) == "unknown flag --zzz: known: --beta, --rho"

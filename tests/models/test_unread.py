"""Settings of dictionaries that are declared as not read beside the value of another change no step."""

import jax
import numpy as np
import pytest

from sae_jax.models import CLASSIC, MODELS
from sae_jax.models.dictionary import Settings as Shared
from sae_jax.settings import settings_of
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state
from tests.transforms import STEP, assert_close


def values_of(rule):
    """The settings of a rule, each with its value."""
    return dict(zip(rule[::2], rule[1::2], strict=True))


# Rules that every dictionary has are tried on one of them.
CASES = [
    (model.name, rule, name)
    for model in MODELS.values()
    if model is not CLASSIC
    for rule, names in model.Settings.UNREAD.items()
    for name in names
    if {name, *rule[::2]} <= settings_of(model.Settings).keys()
    if model.name == "relu" or Shared.UNREAD.get(rule) != names
    if all(value in settings_of(model.Settings)[other].metadata["range"] for other, value in values_of(rule).items())
]
# What makes more of a step depend on it.
ACTIVE = {"dead_after": 1, "pre_activation": 0.1, "aux": 0.5, "target_l0": 2, "target_rate": 0.1, "rate_bandwidth": 2.0}


def other_value(field):
    """A value of a setting beside its default."""
    words = field.metadata["range"].choices
    if words:
        return next(word for word in words if word != field.default)
    if isinstance(field.default, bool):
        return not field.default
    return field.default / 2 if field.default else 1


def after_steps(model, samples, **values):
    settings = lane_settings(model, d_hidden=9, batch_size=32, steps=8, warmup=0.0, **values)
    state = init_state(jax.random.key(0), settings, 16)
    for part in np.split(samples[:96], 3):
        state, curves = STEP(settings, state, part)
    return state, curves


@pytest.mark.parametrize(("model", "rule", "name"), CASES)
def test_what_is_declared_as_not_read_changes_no_step(model, rule, name, samples):
    fields = settings_of(MODELS[model].Settings)
    beside = {one: setting for one, setting in ACTIVE.items() if one in fields and one != name}
    first, second = (
        after_steps(model, samples, **beside | values_of(rule) | {name: given})
        for given in (fields[name].default, other_value(fields[name]))
    )
    assert_close(second, first, rtol=1e-6, atol=1e-7)


def test_a_setting_that_is_read_would_be_noticed(samples):
    first, second = (after_steps("relu", samples, l1=l1, rows="unit") for l1 in (0.1, 0.2))
    with pytest.raises(AssertionError):
        assert_close(second, first, rtol=1e-6, atol=1e-7)

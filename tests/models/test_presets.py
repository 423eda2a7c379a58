"""Every preset is settings of a lane, and trains."""

import jax
import numpy as np
import pytest

from sae_jax.data.statistics import statistics_of
from sae_jax.models import MODELS
from sae_jax.models.presets import PRESETS, preset
from sae_jax.settings import UserError, unread
from sae_jax.training.config import declared, lane_settings
from sae_jax.training.step import init_state
from tests.transforms import STEP, batches_of


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name, samples):
    model, values = preset(name)
    settings = lane_settings(model, **values)
    assert settings.architecture is MODELS[model]
    names = settings.architecture.statistics(settings.model)
    state = init_state(jax.random.key(0), settings, 16, statistics_of(samples, names))
    before = state.params
    for batch in batches_of(0, 3, samples):
        state, curves = STEP(settings, state, batch)
        assert np.isfinite(float(curves["loss"]))
    assert int(state.step) == 3 and int(state.diverged_at) == -1
    rows = "decoder_weight" if "decoder_weight" in before else "encoder_weight"  # One matrix where they are tied.
    assert np.any(state.params[rows] != before[rows])


@pytest.mark.parametrize("name", PRESETS)
def test_no_setting_of_a_preset_is_without_effect_beside_the_others(name):
    model, values = preset(name)
    every = {setting: field.default for setting, field in declared(MODELS[model]).items()} | values
    assert not set(values) & set(unread(MODELS[model].Settings.UNREAD, every))


def test_a_preset_may_be_changed_without_changing_it_for_others():
    preset("gao")[1]["rows"] = "free"
    assert preset("gao")[1]["rows"] == "unit"


def test_the_librarys_rows_of_both_layers_start_at_norm_a_tenth():
    model, values = preset("saelens-standard")
    params = init_state(jax.random.key(0), lane_settings(model, **values), 16).params
    np.testing.assert_array_equal(params["encoder_weight"], params["decoder_weight"])
    np.testing.assert_allclose(np.linalg.norm(params["decoder_weight"], axis=1), 0.1, rtol=1e-5)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"^unknown preset saelens-topc: did you mean saelens-topk\?$"):
        preset("saelens-topc")

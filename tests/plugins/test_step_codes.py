"""A term of a plug-in sees the codes of the step: those of the model's own loss, not those at inference."""

import jax
import numpy as np
import pytest

import sae_jax
from sae_jax.plugins import load
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state, keys_of
from tests.plugins.files import written
from tests.transforms import STEP, assert_close, with_pmap, with_shard_map, with_vmap

UNITS, BATCH = 12, 32
# Where the codes of a step are others than those at inference: k falls from 4 to 1, and a unit is kept on 8 samples.
FALLING = {"k": 1, "k_start": 4, "k_warmup": 0.5}
OTHERS = dict.fromkeys(("topk", "abs_topk", "batch_topk", "matryoshka"), FALLING)
OTHERS |= {"classic": FALLING | {"lifetime": 0.25}}
MODELS = "('classic', 'topk', 'abs_topk', 'batch_topk', 'matryoshka', 'jumprelu')"
SIZE = f"{{'size': term(lambda codes, *_: jnp.mean(jnp.sum(codes**2, axis=1)), models={MODELS})}}"
every_other = pytest.mark.parametrize("model", OTHERS)


def trained(model, samples, **more):
    words = {"d_hidden": UNITS, "steps": 8, "batch_size": BATCH, "progress": False}
    own = OTHERS[model if isinstance(model, str) else model[0]]
    return sae_jax.sweep(samples, model, **words | own | more)


def lane(model, samples, **more):
    """(settings, the first state, the first batch), whose samples differ in size from one device to the next."""
    settings = lane_settings(model, d_hidden=UNITS, steps=8, batch_size=BATCH, **OTHERS[model], **more)
    batch = samples[:BATCH] * np.repeat(np.float32([1, 2, 3, 4]), BATCH // 4)[:, None]
    return settings, init_state(keys_of(jax.random.key(0)).init, settings, samples.shape[1]), batch


def literal_codes(model, params, x):
    """Codes of the first of 8 steps, from all samples of the batch, by sorting."""
    centre = 0 if model == "classic" else params["decoder_bias"]
    z = (x - centre) @ params["encoder_weight"].T + params["encoder_bias"]
    strength = np.abs(z) if model == "abs_topk" else z
    kept = 4 + (1 - 4) / 4
    if model in ("batch_topk", "matryoshka"):
        positive = np.maximum(z, 0)
        return np.where(positive >= np.sort(positive, axis=None)[-round(kept * BATCH)], positive, 0)
    chosen = strength >= np.sort(strength, axis=1)[:, [-round(kept)]]
    if model == "classic":
        chosen &= z >= np.sort(z, axis=0)[[-8]]
        return np.where(chosen, 1 / (1 + np.exp(-z)), 0)
    return np.where(chosen, z if model == "abs_topk" else np.maximum(z, 0), 0)


@every_other
def test_a_term_sees_the_codes_of_the_step(model, samples, tmp_path):
    load(written(tmp_path, SIZE))
    settings, state, batch = lane(model, samples, size=0.5)
    _, curves = STEP(settings, state, batch)
    codes = literal_codes(model, {name: np.asarray(one) for name, one in state.params.items()}, batch)
    np.testing.assert_allclose(curves["loss_size"], 0.5 * np.mean(np.sum(codes**2, axis=1)), rtol=1e-4)


@every_other
@pytest.mark.parametrize("split", [with_vmap, with_pmap, with_shard_map])
def test_a_batch_that_is_split_is_one_batch(model, split, samples, tmp_path):
    load(written(tmp_path, SIZE))
    settings, state, batch = lane(model, samples, size=0.5, optimizer="sgd", momentum=0.0)
    whole, parts = STEP(settings, state, batch), split(settings, state, batch)
    assert_close(jax.tree.map(lambda leaf: leaf[1], parts), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["batch_topk", "matryoshka"])
def test_lanes_that_two_devices_split_are_the_same(model, samples, tmp_path):
    load(written(tmp_path, SIZE))
    alone, *parted = (
        trained(model, samples, size=[0.1, 0.3], devices=2, **more)
        for more in ({}, {"data_parallel": 2}, {"unit_parallel": 2})
    )
    assert np.all(alone["loss_size"] > 0)
    for other in parted:
        for name in alone.data_vars:
            np.testing.assert_allclose(other[name], alone[name], rtol=1e-3, atol=1e-5, err_msg=name)


@every_other
def test_a_term_that_is_off_leaves_lanes_as_they_are_and_on_holds_codes_down(model, samples, tmp_path):
    plain = trained(model, samples)
    load(written(tmp_path, SIZE))
    off, on = (trained(model, samples, size=weight) for weight in (0.0, 10.0))
    for name in plain.data_vars:
        np.testing.assert_array_equal(off[name], plain[name])
    assert np.all(on["eval_mean_activation"].mean("unit") < plain["eval_mean_activation"].mean("unit"))


def test_lists_of_active_codes_are_off_beside_a_term(samples, tmp_path):
    load(written(tmp_path, SIZE))
    model = sae_jax.MODELS["batch_topk"]
    off, on = (lane_settings("batch_topk", d_hidden=999, k=2.0, size=size).model for size in (0.0, 0.1))
    assert model.sparse(model.loss, off) is not None and model.sparse(model.loss, on) is None


def test_several_models_have_each_its_own(samples, tmp_path):
    load(written(tmp_path, SIZE))
    both = trained(("topk", "batch_topk"), samples, size=0.1)
    for name in ("topk", "batch_topk"):
        own = trained(name, samples, size=0.1)["loss_size"]
        np.testing.assert_allclose(both["loss_size"].sel(model=name), own, rtol=1e-5)


def test_codes_that_a_step_stores_in_few_bits_are_summed_in_float32(samples, tmp_path):
    load(written(tmp_path, SIZE))
    settings, state, batch = lane("batch_topk", samples, size=0.5, activation_dtype="bfloat16")
    codes = literal_codes("batch_topk", {name: np.asarray(one) for name, one in state.params.items()}, batch)
    value = float(STEP(settings, state, batch)[1]["loss_size"])
    assert value == pytest.approx(0.5 * np.mean(np.sum(codes**2, axis=1)), rel=0.01)
    assert value != float(jax.numpy.bfloat16(value))


def test_through_thresholds_a_term_moves_pre_activations_where_the_loss_does(samples, tmp_path):
    load(written(tmp_path, SIZE))
    words = {"d_hidden": UNITS, "steps": 8, "size": 1.0, "l0": 0.0, "progress": False}
    first, second = sae_jax.sweep(samples, "jumprelu", input_gradient=[False, True], **words)["encoder_bias"].values
    assert not np.allclose(first, second, atol=1e-6)


OWN = "encode=lambda p, x, s: BATCH_TOPK.encode({**p, 'threshold': jnp.full(s.d_hidden, 0.1)}, x, s)"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("", lambda z: np.where(z >= 0.1, z, 0)),  # The largest of the batch are those of another model.
        (", step_codes=lambda p, step, s: 2 * step.x @ p['encoder_weight'].T", lambda z: 2 * z),
    ],
)
def test_a_model_of_ones_own_says_what_its_codes_are(more, rule, samples, tmp_path):
    parts = SIZE.replace(MODELS, "('a',)").replace("{", f"{{'a': BATCH_TOPK._replace(name='a', {OWN}{more}), ", 1)
    path = written(tmp_path, parts)
    path.write_text(path.read_text().replace("\nPARTS", "\nfrom sae_jax.models.batch_topk import BATCH_TOPK\nPARTS"))
    load(path)
    settings = lane_settings("a", d_hidden=UNITS, size=1.0, k=1.0, k_warmup=0.0)
    params = init_state(jax.random.key(0), settings, 16).params
    z = samples[:BATCH] @ np.asarray(params["encoder_weight"]).T
    _, curves = STEP(settings, init_state(jax.random.key(0), settings, 16), samples[:BATCH])
    np.testing.assert_allclose(curves["loss_size"], np.mean(np.sum(rule(z) ** 2, axis=1)), rtol=1e-4)

"""Dictionaries that make other activations of their inputs, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import UserError, init_state, lane_settings
from sae_jax.models import MODELS
from sae_jax.models.base import Step
from sae_jax.training.evaluation import evaluate
from sae_jax.training.shapes import split
from tests.transforms import STEP

D_IN, OUTPUTS, UNITS, BATCH = 6, 4, 10, 32
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(BATCH, D_IN + OUTPUTS)).astype(np.float32)
X, Y = ROWS[:, :D_IN], ROWS[:, D_IN:]


def lane(model, **values):
    settings = lane_settings(model, d_hidden=UNITS, outputs=OUTPUTS, batch_size=BATCH, steps=100, **values)
    params = init_state(jax.random.key(0), settings, D_IN + OUTPUTS).params
    keys = jax.random.split(jax.random.key(1), len(params))
    drawn = {
        name: value + 0.2 * jax.random.normal(key, value.shape)
        for key, (name, value) in zip(keys, params.items(), strict=True)
    }
    return settings, drawn | ({"threshold": jnp.abs(drawn["threshold"])} if model == "jumprelu" else {})


def by_hand(params, model, k=3):
    """(codes, y_hat) in double precision."""
    p = {name: np.asarray(value, float) for name, value in params.items()}
    z = X @ p["encoder_weight"].T + p["encoder_bias"]
    if model == "jumprelu":
        codes = z * (z > p["threshold"])
    elif model == "topk":
        codes = np.maximum(z, 0) * (z >= np.sort(z, axis=1)[:, -k][:, None])
    else:
        codes = np.maximum(z, 0)
    return codes, codes @ p["decoder_weight"] + p["decoder_bias"] + X @ p.get("skip_weight", np.zeros((4, 6))).T


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("model", ["relu", "topk", "jumprelu"])
def test_loss_and_measures_are_of_the_targets(model, skip):
    settings, params = lane(model, skip=skip, **({"k": 3} if model == "topk" else {}))
    codes, made = by_hand(params, model)
    error = np.mean(np.sum((Y - made) ** 2, axis=1))

    @jax.jit
    def computed(params):
        terms, _ = settings.architecture.loss(params, None, Step(*split(ROWS, settings), steps=100), settings.model)
        return terms, evaluate(params, ROWS, settings)

    terms, measured = computed(params)
    np.testing.assert_allclose(terms["reconstruction"], error, rtol=1e-5)
    if model == "relu":
        norms = np.linalg.norm(np.asarray(params["decoder_weight"]), axis=1)
        np.testing.assert_allclose(terms["l1"], 0.1 * np.mean(np.sum(codes * norms, axis=1)), rtol=1e-5)
    np.testing.assert_allclose(measured["reconstruction"], error, rtol=1e-5)
    spread = np.sum((Y - Y.mean(axis=0)) ** 2)
    np.testing.assert_allclose(measured["explained_variance"], 1 - BATCH * error / spread, rtol=1e-4)
    np.testing.assert_allclose(measured["l0"], np.count_nonzero(codes, axis=1).mean())
    assert params.keys() == settings.architecture.parameters(settings.model).keys()
    assert ("skip_weight" in params) == skip


@pytest.mark.parametrize("prefixes", ["", "1/2", "drawn:2"])
def test_the_skip_leaves_its_part_of_the_targets_to_nobody_else(prefixes):
    settings, params = lane("relu", skip=True, prefixes=prefixes)

    @jax.jit
    def error(params, target):
        step = Step(X, target, steps=100)
        return settings.architecture.loss(params, None, step, settings.model)[0]["reconstruction"]

    skipped = X @ np.asarray(params["skip_weight"]).T
    without = params | {"skip_weight": jnp.zeros_like(params["skip_weight"])}
    np.testing.assert_allclose(error(params, Y), error(without, Y - skipped), rtol=1e-5)
    gradient = jax.jit(jax.grad(error))(params, Y)
    if not prefixes:
        residual = Y - by_hand(params, "relu")[1]
        np.testing.assert_allclose(gradient["skip_weight"], -2 * residual.T @ X / BATCH, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient["decoder_bias"], -2 * residual.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_the_start():
    settings = lane_settings("relu", d_hidden=UNITS, outputs=OUTPUTS, skip=True, centre="mean", start_norm=0.3)
    mean = np.arange(D_IN + OUTPUTS, dtype=np.float32)
    params = init_state(jax.random.key(0), settings, D_IN + OUTPUTS, {"mean": mean}).params
    np.testing.assert_array_equal(params["decoder_bias"], mean[D_IN:])
    np.testing.assert_allclose(np.linalg.norm(params["encoder_weight"], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(params["decoder_weight"], axis=1), 0.3, rtol=1e-6)
    shapes = {name: value.shape for name, value in params.items()}
    assert shapes == {
        "encoder_weight": (UNITS, D_IN),
        "encoder_bias": (UNITS,),
        "decoder_weight": (UNITS, OUTPUTS),
        "decoder_bias": (OUTPUTS,),
        "skip_weight": (OUTPUTS, D_IN),
    }
    assert not np.any(params["skip_weight"]) and not np.any(params["encoder_bias"])


@pytest.mark.parametrize("model", ["relu", "topk", "abs_topk", "batch_topk", "matryoshka", "jumprelu", "gated"])
def test_every_part_is_trained_by_targets_alone(model):
    settings = lane_settings(model, d_hidden=UNITS, outputs=OUTPUTS, skip=True, batch_size=BATCH, steps=400, warmup=0.0)
    state = init_state(jax.random.key(0), settings, D_IN + OUTPUTS)
    rows = np.concatenate([X, np.maximum(X @ RNG.normal(size=(D_IN, OUTPUTS)), 0)], axis=1).astype(np.float32)
    first = STEP(settings, state, rows)[1]["loss_reconstruction"]
    for _ in range(200):
        state, curves = STEP(settings, state, rows)
    assert curves["loss_reconstruction"] < 0.5 * first
    start = init_state(jax.random.key(0), settings, D_IN + OUTPUTS).params
    assert all(np.any(state.params[name] != value) for name, value in start.items())


def test_rows_of_another_width_are_refused():
    settings = lane_settings("relu", d_hidden=UNITS, outputs=OUTPUTS, batch_size=BATCH)
    state = init_state(jax.random.key(0), settings, D_IN + OUTPUTS)
    with pytest.raises(UserError, match=r"samples must be an array \[samples, 10\] for .*: got shape \[32, 6\]"):
        STEP(settings, state, X)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("relu", {"encoder_start": "decoder"}, "encoder_start decoder is of no transcoder, since decoder rows lie"),
        ("topk", {"dead_units": "resampling"}, "dead_units resampling is of no transcoder, since new rows along"),
        ("jumprelu", {"centre": "median"}, "centre median is of no transcoder, since the median of a row of both"),
        ("matching_pursuit", {}, "matching_pursuit encodes with its decoder rows, which reconstruct samples"),
    ],
)
def test_what_lies_among_inputs_and_targets_at_once_is_refused(model, values, message):
    with pytest.raises(UserError, match=message):
        lane_settings(model, outputs=4, **values)


def test_every_model_says_whether_it_has_outputs():
    found = {name: model.outputs(model.Settings()) for name, model in MODELS.items()}
    assert set(found.values()) == {0}
    assert MODELS["relu"].outputs(MODELS["relu"].Settings(outputs=3)) == 3

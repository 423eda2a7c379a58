"""Decoder rows: their start, their norm, and where they are held, against literal references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, rows
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state
from tests.transforms import STEP, batches_of

RNG = np.random.default_rng(0)
ROWS = (RNG.normal(size=(8, 5)) * RNG.uniform(0.01, 30, size=(8, 1))).astype(np.float32)
OTHER = RNG.normal(size=(8, 5)).astype(np.float32)


def length(row):
    return np.sqrt(np.sum(row.astype(float) ** 2))


def test_norms_and_unit_rows():
    np.testing.assert_allclose(rows.norms(jnp.asarray(ROWS)), [length(row) for row in ROWS], rtol=1e-6)
    np.testing.assert_allclose(rows.unit_rows(jnp.asarray(ROWS)), [row / length(row) for row in ROWS], rtol=1e-6)
    assert not np.any(rows.unit_rows(jnp.zeros((2, 3))))


def test_the_tangential_gradient_is_what_is_orthogonal_to_each_row():
    found = np.asarray(rows.tangential(jnp.asarray(ROWS), jnp.asarray(OTHER)))
    for row, gradient, left in zip(ROWS.astype(float), OTHER.astype(float), found, strict=True):
        direction = row / length(row)
        np.testing.assert_allclose(left, gradient - (gradient @ direction) * direction, atol=1e-5)
    zero = jnp.zeros((1, 5))
    np.testing.assert_array_equal(rows.tangential(zero, jnp.asarray(OTHER[:1])), OTHER[:1])


@pytest.mark.parametrize(("norm", "encoder_norm"), [(0.1, 1.0), (0.1, 0.1), (1.0, 1.0)])
def test_both_layers_start_along_the_same_directions(norm, encoder_norm):
    params = rows.directions(jax.random.key(0), 5, 2000, norm, encoder_norm)
    encoder, decoder = np.asarray(params["encoder_weight"]), np.asarray(params["decoder_weight"])
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), norm, rtol=1e-5)
    np.testing.assert_allclose(encoder * norm, decoder * encoder_norm, rtol=1e-5)
    assert not np.any(params["encoder_bias"]) and not np.any(params["decoder_bias"])
    # Every direction alike: of 2000 the mean is near 0, and the squares are shared out evenly.
    np.testing.assert_allclose(np.mean(decoder / norm, axis=0), 0, atol=4 * (5 * 2000) ** -0.5)
    np.testing.assert_allclose(np.mean((decoder / norm) ** 2, axis=0), 0.2, atol=0.02)


@pytest.mark.parametrize(
    ("values", "decoder", "encoder"),
    [
        ({"rows": "free", "start_norm": 0.2}, 0.2, 1),
        ({"rows": "free", "start_norm": 0.2, "encoder_start": "decoder"}, 0.2, 0.2),
        ({"rows": "unit", "start_norm": 0.2, "encoder_start": "decoder"}, 1, 1),
    ],
)
def test_settings_say_where_they_start(values, decoder, encoder):
    own = lane_settings("relu", d_hidden=6, **values).model
    params = MODELS["relu"].init(jax.random.key(0), 4, own)
    np.testing.assert_allclose(np.linalg.norm(params["decoder_weight"], axis=1), decoder, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(params["encoder_weight"], axis=1), encoder, rtol=1e-5)


def test_rows_that_leave_the_cone_around_their_start_return_to_its_edge():
    start = RNG.normal(size=(6, 5)).astype(np.float32)
    moved = start + np.array([0, 0.1, 0.5, 1, 3, 10], np.float32)[:, None] * RNG.normal(size=(6, 5)).astype(np.float32)
    moved[5] *= -1
    found = np.asarray(rows.near(jnp.asarray(moved), jnp.asarray(start), 0.8))
    outside = 0
    for before, towards, after in zip(moved.astype(float), start.astype(float), found, strict=True):
        along = towards / length(towards)
        cosine = before @ along / length(before)
        expected = before
        if cosine < 0.8:
            outside += 1
            sideways = before - (before @ along) * along
            expected = length(before) * (0.8 * along + 0.6 * sideways / length(sideways))
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
    assert 0 < outside < 6


@pytest.mark.parametrize("held", ["unit", "soft"])
def test_a_step_holds_rows_where_settings_say(samples, held):
    values = {"rows": "unit"} if held == "unit" else {"frozen": "soft"}
    settings = lane_settings("relu", d_hidden=6, steps=40, learning_rate=0.3, warmup=0.0, batch_size=32, **values)
    state = init_state(jax.random.key(0), settings, 16)
    start = np.asarray(state.params["decoder_weight"])
    for batch in batches_of(0, 20, samples):
        state, _ = STEP(settings, state, batch)
    after = np.asarray(state.params["decoder_weight"])
    norms = np.linalg.norm(after, axis=1)
    cosines = np.sum(start * after, axis=1) / norms / np.linalg.norm(start, axis=1)
    if held == "unit":
        np.testing.assert_allclose(norms, 1, rtol=1e-5)
        assert np.min(cosines) < 0.79
    else:
        assert np.all(cosines > 0.8 - 1e-5) and np.min(cosines) < 0.81
        np.testing.assert_array_equal(state.params["decoder_start"], start)

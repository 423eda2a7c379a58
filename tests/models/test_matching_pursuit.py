"""Matching pursuit against a literal reference, sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sae_jax
from sae_jax.models import MODELS
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings

RNG = np.random.default_rng(0)
X = (2 * RNG.normal(size=(40, 5))).astype(np.float32)


def reference(x, params, rounds, threshold, repeat):
    """(codes, rounds of each sample)."""
    weight, codes, taken = params["decoder_weight"].astype(float), np.zeros((len(x), len(params["decoder_weight"]))), []
    for i, sample in enumerate(x):
        residual, number = sample - params["decoder_bias"].astype(float), 0
        for _ in range(rounds):
            number += 1
            along = weight @ residual
            best = int(np.argmax(along))
            amount = max(0.0, along[best])
            new = codes[i, best] == 0 and amount > 0
            codes[i, best] += amount
            residual = residual - amount * weight[best]
            if (repeat and not new) or (threshold and np.linalg.norm(residual) < threshold):
                break
        taken.append(number)
    return codes, taken


@pytest.mark.parametrize("rows", ["unit", "free"])
@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize("repeat", [False, True])
def test_codes_are_what_the_rounds_take_out(rows, threshold, repeat):
    values = {"d_hidden": 9, "k": 6, "rows": rows, "residual_threshold": threshold, "stop_at_repeat": repeat}
    own = lane_settings("matching_pursuit", **values).model
    params = MODELS["matching_pursuit"].init(jax.random.key(0), 5, own)
    if rows == "free":
        params["decoder_weight"] *= jnp.linspace(0.7, 1.2, 9)[:, None]
    params["decoder_bias"] = jnp.linspace(-0.3, 0.3, 5)
    expected, taken = reference(X, {name: np.asarray(value) for name, value in params.items()}, 6, threshold, repeat)
    assert (min(taken) < max(taken)) == bool(threshold or repeat)
    codes = MODELS["matching_pursuit"].encode(params, jnp.asarray(X), own)
    np.testing.assert_allclose(codes, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "norm"), [({}, 1), ({"rows": "free"}, 1), ({"rows": "free", "start_norm": 0.5}, 0.5)]
)
def test_rows_start_at_norm_one_unless_another_is_given(values, norm):
    own = lane_settings("matching_pursuit", d_hidden=9, **values).model
    params = MODELS["matching_pursuit"].init(jax.random.key(0), 5, own)
    assert set(params) == {"decoder_weight", "decoder_bias"}
    np.testing.assert_allclose(np.linalg.norm(params["decoder_weight"], axis=1), norm, rtol=1e-5)


def test_a_target_l0_is_its_number_of_rounds_beside_other_models_too(samples):
    settings = {"d_hidden": 16, "steps": 20, "batch_size": 32, "seeds": 1, "k": 3}
    both = sae_jax.sweep(samples, ["topk", "matching_pursuit"], target_l0=[0.0, 2.0], **settings)
    pursuit = both["eval_l0"].sel(model="matching_pursuit").squeeze().values
    assert 2 < pursuit[0] <= 3.0001 and 1 < pursuit[1] <= 2.0001
    alone = sae_jax.sweep(samples, "matching_pursuit", target_l0=2, **settings)
    np.testing.assert_allclose(alone["eval_l0"].values.squeeze(), pursuit[1], rtol=1e-6)
    with pytest.raises(UserError, match=r"target_l0 of matching_pursuit must be a whole number: got 2\.5; use 2"):
        sae_jax.sweep(samples, ["topk", "matching_pursuit"], target_l0=2.5, **settings)
    with pytest.raises(UserError, match="target_l0 must be at most d_hidden: got 17 of 16"):
        sae_jax.sweep(samples, "matching_pursuit", target_l0=17, **settings)

"""The threshold of BatchTopK at inference, against a loop over batches that keeps the smallest code of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, Step
from sae_jax.training.config import lane_settings

D_IN, UNITS, BATCH, K, DECAY = 5, 7, 12, 2.5, 0.9
RNG = np.random.default_rng(0)
BATCHES = RNG.normal(size=(3, BATCH, D_IN)).astype(np.float32)
# Below 0, so that samples of 0 keep no code.
BIAS = np.full(UNITS, -0.05, np.float32)
NOTHING = np.zeros((BATCH, D_IN), np.float32)
MODEL = MODELS["batch_topk"]


def settings_of(bias):
    return lane_settings("batch_topk", d_hidden=UNITS, k=K, threshold_decay=DECAY, threshold_bias=bias).model


def params_of(own):
    return MODEL.init(jax.random.key(0), D_IN, own) | {"encoder_bias": jnp.asarray(BIAS)}


def after(batches, own):
    """(memory, threshold of the finished lane) after losses of batches, with parameters that stay."""
    params, memory = params_of(own), MODEL.memory(own)
    for x in batches:
        _, seen = MODEL.loss(params, memory, Step(x, x), own)
        memory = MODEL.update(memory, seen, own)
    return memory, MODEL.finish(params, memory, own)["threshold"]


def literal(batches, own, corrected):
    """Mean of the smallest code kept, the latest batch weighing most; without the correction, one of them is 0."""
    weight = np.asarray(params_of(own)["encoder_weight"], float)
    average, weights = 0.0, 0.0
    for x in batches:
        z = np.sort((x.astype(float) @ weight.T + BIAS).ravel())[::-1]
        kept = [value for value in z[: round(BATCH * K)] if value > 0]
        if not kept:
            continue
        average = DECAY * average + (1 - DECAY) * min(kept)
        weights = DECAY * weights + (1 - DECAY)
    return average / weights if corrected else average


@pytest.mark.parametrize("bias", ["corrected", "kept"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_threshold_is_the_running_mean_of_the_smallest_code_kept(bias, count):
    own = settings_of(bias)
    expected = literal(BATCHES[:count], own, bias == "corrected")
    assert expected > 0
    np.testing.assert_allclose(after(BATCHES[:count], own)[1], np.full(UNITS, expected), rtol=1e-5)


def test_the_start_at_0_weighs_nothing_unless_that_is_kept():
    """The preset's threshold is the paper's, a mean over batches: after three of them it lies among their own."""
    assert lane_settings("bussmann").model.threshold_bias == "corrected"
    single = [literal([x], settings_of("corrected"), True) for x in BATCHES]
    corrected, kept = (float(after(BATCHES, settings_of(bias))[1][0]) for bias in ("corrected", "kept"))
    assert min(single) < corrected < max(single)
    assert kept == pytest.approx((1 - DECAY**3) * corrected, rel=1e-5)


@pytest.mark.parametrize("bias", ["corrected", "kept"])
def test_a_batch_that_kept_none_changes_nothing(bias):
    own = settings_of(bias)
    memory, threshold = after(BATCHES, own)
    for batches in ([*BATCHES, NOTHING], [NOTHING, *BATCHES], [BATCHES[0], NOTHING, *BATCHES[1:]]):
        beside, found = after(batches, own)
        jax.tree.map(np.testing.assert_array_equal, beside.threshold, memory.threshold)
        np.testing.assert_array_equal(found, threshold)
    # Of such batches alone, the threshold is where it starts.
    np.testing.assert_array_equal(after([NOTHING], own)[1], np.zeros(UNITS))

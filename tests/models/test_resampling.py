"""Units that begin anew at samples which are badly rebuilt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import DataConfig, UserError, load
from sae_jax.models import MODELS, Across, Step, resampling
from sae_jax.settings import settings_of
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state, train_step
from tests.transforms import STEP

RNG = np.random.default_rng(3)
RESIDUAL = RNG.normal(size=(12, 5)).astype(np.float32)
X = RNG.normal(size=(12, 5)).astype(np.float32)
DEAD = np.isin(np.arange(9), [0, 2, 3, 7])
CHOOSE = jax.jit(functools.partial(resampling.choose, across=Across()))


def chosen_by_hand(residual, x, dead):
    weights = np.sum(residual.astype(float) ** 2, axis=1) ** 2
    ends = np.cumsum(weights)
    rows, taken = np.zeros((len(dead), x.shape[1])), set()
    for place, unit in enumerate(np.flatnonzero(dead)):
        sample = next(i for i, end in enumerate(ends) if (place + 0.5) / dead.sum() * ends[-1] <= end)
        if sample not in taken:
            rows[unit] = x[sample] / np.linalg.norm(x[sample])
        taken.add(sample)
    return rows


@pytest.mark.parametrize("dead", [DEAD, np.ones(9, bool), np.zeros(9, bool)], ids=["some", "all", "none"])
def test_dead_units_take_samples_by_the_square_of_their_error(dead):
    which, rows = CHOOSE(RESIDUAL, X, dead)
    expected = chosen_by_hand(RESIDUAL, X, dead)
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(which, np.any(expected != 0, axis=1))


def test_a_sample_is_taken_by_one_unit_alone_and_the_others_stay():
    residual = RESIDUAL * np.where(np.arange(12) == 5, 10, 1e-3)[:, None].astype(np.float32)
    which, rows = CHOOSE(residual, X, DEAD)
    assert np.flatnonzero(which).tolist() == [0]
    np.testing.assert_allclose(rows[0], X[5] / np.linalg.norm(X[5]), rtol=1e-6)


def test_devices_choose_together_what_one_chooses():
    def choose(residual, x):
        return resampling.choose(residual, x, jnp.asarray(DEAD), Across("split"))

    parts = jax.jit(jax.vmap(choose, axis_name="split"))(RESIDUAL.reshape(4, 3, 5), X.reshape(4, 3, 5))
    for part in parts[1]:
        np.testing.assert_allclose(part, chosen_by_hand(RESIDUAL, X, DEAD), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("times", "span", "steps", "expected"),
    [(4, 0.5, 100, [12, 24, 37, 49]), (1, 1.0, 10, [9]), (3, 0.0, 10, [0]), (20, 0.5, 10, [0, 1, 2, 3, 4])],
)
def test_it_happens_so_many_times_evenly_apart(times, span, steps, expected):
    x = jnp.zeros((1, 1))
    due = jax.jit(jax.vmap(lambda t: resampling.due(Step(x, x, t, steps), times, span)))(jnp.arange(steps))
    assert np.flatnonzero(due).tolist() == expected


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"classic"}))
@pytest.mark.parametrize("rows", ["unit", "free"])
def test_a_unit_that_begins_anew_has_a_samples_direction_and_no_history(name, rows):
    values = {"d_hidden": 7, "batch_size": 12, "steps": 8, "rows": rows, "dead_units": "resampling", "dead_after": 1}
    values |= {"resample_times": 1, "resample_span": 0.5, "learning_rate": 0.01}
    values |= {"k": 2} if "k" in settings_of(MODELS[name].Settings) else {}
    settings = lane_settings(MODELS[name], **values)
    state = init_state(jax.random.key(0), settings, 5)
    for _ in range(3):
        state, _ = STEP(settings, state, jnp.asarray(X))
    silent = jnp.where(jnp.arange(7) < 3, 100, 0)
    state = state.replace(memory=state.memory.replace(silence=state.memory.silence.replace(silent=silent)))
    after, _ = STEP(settings, state, jnp.asarray(X))
    plain = lane_settings(MODELS[name], **values | {"resample_span": 1.0})
    without, _ = STEP(plain, state, jnp.asarray(X))
    centred = X - np.asarray(state.params["decoder_bias"])
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    old = np.linalg.norm(without.params["decoder_weight"], axis=1)
    for unit in range(3):
        row = np.asarray(after.params["decoder_weight"][unit])
        assert np.max(directions @ row / np.linalg.norm(row)) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(row) == pytest.approx(1 if rows == "unit" else old[3:].mean(), rel=1e-5)
        if "encoder_weight" in after.params:
            encoder = np.asarray(after.params["encoder_weight"][unit])
            share = 1 if hasattr(settings.model, "k") else 0.2
            norm = share * np.linalg.norm(without.params["encoder_weight"], axis=1)[3:].mean()
            np.testing.assert_allclose(encoder, norm * row / np.linalg.norm(row), rtol=1e-5, atol=1e-7)
            assert after.params["encoder_bias"][unit] == 0
        if "threshold" in after.params:
            assert after.params["threshold"][unit] == settings.model.threshold_start
        assert after.memory.silence.silent[unit] == 0
    moments = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.shape == (7, 5)]
    assert len(moments) >= 2 and all(np.all(leaf[:3] == 0) and np.any(leaf[3:] != 0) for leaf in moments)
    # The others go on as if nothing had happened.
    for name, value in without.params.items():
        kept = value[3:] if value.shape[0] == 7 else value
        np.testing.assert_array_equal(after.params[name][3:] if value.shape[0] == 7 else after.params[name], kept)


@functools.cache
def drawn_batches():
    """The batches of 240 steps from features in superposition, [240, 64, 32]."""
    feed = load(DataConfig(dataset="superposition", samples=500)).feed
    draw = jax.jit(jax.vmap(lambda step: feed.draw(feed.block(0, 64, 1), jax.random.key(1), step, 64, None)))
    return draw(jnp.arange(240))


@jax.jit
def with_every_second_unit_off(settings, batches):
    """The parameters after a step on each of the batches, from a start with biases that switch units off."""
    state = init_state(jax.random.key(0), settings, 32)
    off = jnp.where(jnp.arange(64) % 2 == 0, -100.0, 0.0)
    state = state.replace(params=state.params | {"encoder_bias": off})
    state, _ = jax.lax.scan(lambda state, batch: (train_step(settings, state, batch)[0], None), state, batches)
    return state.params


@pytest.mark.parametrize(("name", "own"), [("relu", {"l1": 0.05}), ("topk", {"k": 3.0}), ("jumprelu", {"l0": 0.01})])
def test_units_that_were_switched_off_fire_again_and_stay_off_without_it(name, own):
    batches, firing = drawn_batches(), {}
    for help_for_dead in ("none", "resampling"):
        values = {"d_hidden": 64, "batch_size": 64, "steps": 240, "dead_units": help_for_dead, "dead_after": 1000}
        settings = lane_settings(MODELS[name], learning_rate=1e-3, rows="unit", **own, **values)
        params = with_every_second_unit_off(settings, batches)
        firing[help_for_dead] = np.any(MODELS[name].encode(params, batches[-1], settings.model) != 0, axis=0)
    assert not np.any(firing["none"][::2]) and firing["resampling"][::2].mean() > 0.5


def test_rows_that_stay_cannot_begin_anew():
    with pytest.raises(UserError, match="dead_units resampling needs rows that may change: got frozen decoder; use"):
        lane_settings(MODELS["topk"], dead_units="resampling", frozen="decoder")

"""What counts as dead, and the terms that bring units back, against literal references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, Across, Step, dead
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state
from tests.transforms import STEP

RNG = np.random.default_rng(0)
D_IN, UNITS, BATCH = 6, 9, 12
Z = RNG.normal(size=(BATCH, UNITS)).astype(np.float32)
RESIDUAL = RNG.normal(size=(BATCH, D_IN)).astype(np.float32) + 0.5
DECODER = RNG.normal(size=(UNITS, D_IN)).astype(np.float32)
PARAMS = {"decoder_weight": jnp.asarray(DECODER)}
# None, fewer than d_in / 2, as many, more, and all.
MASKS = [np.isin(np.arange(UNITS), units) for units in ([], [4], [0, 4, 7], [0, 2, 4, 5, 8], range(UNITS))]
every_mask = pytest.mark.parametrize("mask", MASKS, ids=lambda mask: f"{mask.sum()} dead")


def unexplained(mask, strength=Z):
    """Mean squared error of the d_in / 2 strongest dead units of each sample on the residual."""
    total = 0.0
    for i in range(BATCH):
        chosen = sorted(np.flatnonzero(mask), key=lambda j: -strength[i, j])[: D_IN // 2]
        rebuilt = sum((Z[i, j].astype(float) * DECODER[j] for j in chosen), np.zeros(D_IN))
        total += np.sum((RESIDUAL[i] - rebuilt) ** 2)
    return total / BATCH


def variance():
    return np.mean(np.sum((RESIDUAL - RESIDUAL.mean(axis=0)) ** 2, axis=1))


def arguments(mask, strength=None):
    strength = None if strength is None else jnp.asarray(strength)
    return PARAMS, jnp.asarray(Z), jnp.asarray(mask), jnp.asarray(RESIDUAL), Across(), strength


@every_mask
def test_auxk_is_the_dead_units_error_over_the_residuals_variance(mask):
    expected = unexplained(mask) / variance() if np.any(mask) else 0
    assert float(dead.auxiliary_error(*arguments(mask))) == pytest.approx(expected, rel=1e-5)


@every_mask
def test_auxk_in_full_counts_by_the_share_of_dead_units(mask):
    expected = min(1, mask.sum() / (D_IN // 2)) * unexplained(mask) if np.any(mask) else 0
    assert float(dead.auxiliary_error_in_full(*arguments(mask))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("strength", [np.abs(Z), Z * np.linalg.norm(DECODER, axis=1)], ids=["size", "norms"])
def test_units_are_chosen_by_strength_and_rebuild_with_their_pre_activations(strength):
    mask = MASKS[-1]
    expected = unexplained(mask, strength)
    assert abs(expected - unexplained(mask)) > 0.1
    error = dead.auxiliary_error_in_full(*arguments(mask, strength))
    assert float(error) == pytest.approx(expected, rel=1e-5)


def test_nothing_left_to_rebuild_gives_no_error_and_no_slope():
    params, z, mask, residual, across, _ = arguments(MASKS[-1])
    zero = jnp.zeros_like(residual)
    value, slope = jax.value_and_grad(lambda p: dead.auxiliary_error(p, z, mask, zero, across))(params)
    assert float(value) == 0 and not np.any(slope["decoder_weight"])


@pytest.mark.parametrize("error", [dead.auxiliary_error, dead.auxiliary_error_in_full])
def test_a_single_output_and_no_dead_unit_give_no_error_and_no_slope(error):
    params, z, _, residual, across, _ = arguments(MASKS[-1])
    params = {"decoder_weight": params["decoder_weight"][:, :1]}
    value, slope = jax.value_and_grad(lambda p: error(p, z, jnp.zeros(UNITS, bool), residual[:, :1], across))(params)
    assert float(value) == 0 and not np.any(slope["decoder_weight"])


def test_only_dead_units_learn_from_auxk_and_the_residual_does_not():
    params, z, mask, residual, across, _ = arguments(MASKS[2])
    to_params, to_z, to_residual = jax.grad(
        lambda p, z, e: dead.auxiliary_error(p, z, mask, e, across), argnums=(0, 1, 2)
    )(params, z, residual)
    for gradient in (np.abs(to_params["decoder_weight"]).sum(axis=1), np.abs(to_z).sum(axis=0)):
        np.testing.assert_array_equal(gradient > 0, MASKS[2])
    assert not np.any(to_residual)


def test_auxk_and_the_variance_are_those_of_the_whole_batch_when_it_is_split():
    params, z, mask, residual, *_ = arguments(MASKS[3])
    parts = jax.vmap(lambda z, e: dead.auxiliary_error(params, z, mask, e, Across("batch")), axis_name="batch")(
        z.reshape(3, 4, UNITS), residual.reshape(3, 4, D_IN)
    )
    assert float(jnp.mean(parts)) == pytest.approx(unexplained(MASKS[3]) / variance(), rel=1e-5)


@every_mask
def test_shortfall_sums_how_far_below_their_thresholds_units_lie(mask):
    theta = np.linspace(-0.5, 1, UNITS).astype(np.float32)
    expected = 0.0
    for i in range(BATCH):
        for j in np.flatnonzero(mask):
            expected += max(0, theta[j] - Z[i, j]) * np.linalg.norm(DECODER[j]) / BATCH
    found = dead.shortfall(PARAMS, jnp.asarray(Z), jnp.asarray(theta), jnp.asarray(mask))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_lanes_with_and_without_dead_units_learn_from_auxk_as_each_alone_and_none_pays_for_it_without():
    own = lane_settings("topk", d_hidden=UNITS, k=2, dead_units="auxk", dead_after=1).model
    model = MODELS["topk"]
    params, x = model.init(jax.random.key(0), D_IN, own), jnp.asarray(RESIDUAL)

    def slope(silent):
        memory = model.memory(own).replace(silence=dead.DeadUnits(silent))
        return jax.grad(lambda p: sum(model.loss(p, memory, Step(x, x), own)[0].values()))(params)

    silences = jnp.asarray([[0] * UNITS, [0, 1, 0, 3, 0, 0, 0, 0, 0]], jnp.int32)
    together = jax.jit(jax.vmap(slope))(silences)
    for i, silent in enumerate(silences):
        alone = jax.jit(slope)(silent)
        jax.tree.map(lambda all_, one, i=i: np.testing.assert_allclose(all_[i], one, atol=1e-6), together, alone)
    assert np.any(np.asarray(together["decoder_weight"][0] != together["decoder_weight"][1]))
    np.testing.assert_array_equal(jax.vmap(dead.any_lane)(silences > 0), [True, True])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(dead.any_lane))(jnp.zeros((2, 3, UNITS), bool)), np.zeros((2, 3)))
    # A branch of its own, where one that depends on the lane would be computed for all.
    assert "cond[" in str(jax.make_jaxpr(jax.vmap(slope))(silences))


def test_silence_counts_samples_from_when_a_unit_last_fired_and_stops():
    state = dead.start(3)
    for fired in ([1, 0, 0], [0, 0, 1], [0, 0, 0]):
        state = dead.update(state, jnp.asarray(fired, bool), jnp.int32(8))
    np.testing.assert_array_equal(state.silent, [16, 24, 8])
    late = dead.update(dead.DeadUnits(jnp.full(3, dead.MOST_SILENT, jnp.int32)), jnp.zeros(3, bool), jnp.int32(8))
    np.testing.assert_array_equal(late.silent, dead.MOST_SILENT)


def test_a_unit_is_dead_from_the_step_on_before_which_it_was_silent_for_so_many_samples():
    values = {"d_hidden": UNITS, "k": 2, "k_warmup": 0, "dead_units": "auxk", "dead_after": 16, "batch_size": 8}
    settings = lane_settings("topk", **values, steps=10)
    state = init_state(jax.random.key(0), settings, D_IN)
    state.params["encoder_bias"] = state.params["encoder_bias"].at[3].set(-100.0)
    # Every unit but one fires: the batch holds a sample along each row.
    batch = np.asarray(state.params["encoder_weight"][np.array([0, 1, 2, 4, 5, 6, 7, 8])])
    seen = []
    for _ in range(4):
        state, curves = STEP(settings, state, batch)
        seen.append(float(curves["loss_aux"]) > 0)
    assert seen == [False, False, True, True]


@pytest.mark.parametrize("help_", ["pre_activation", "pre_activation_dead"])
def test_abs_topk_refuses_to_lift_pre_activations_of_which_both_signs_fire(help_):
    with pytest.raises(UserError, match="abs_topk has no threshold that pre-activations lie below"):
        lane_settings("abs_topk", d_hidden=UNITS, dead_units=help_)


def test_abs_topk_rebuilds_with_the_signs_of_its_dead_units():
    settings = lane_settings("abs_topk", d_hidden=UNITS, k=2, dead_units="auxk", aux=1.0, aux_form="full", dead_after=1)
    model, own = MODELS["abs_topk"], settings.model
    params = model.init(jax.random.key(0), D_IN, own)
    x = jnp.asarray(RESIDUAL)
    memory = model.memory(own)
    memory = memory.replace(silence=dead.DeadUnits(jnp.ones(UNITS, jnp.int32)))
    terms, _ = model.loss(params, memory, Step(x, x), own)
    z = RESIDUAL @ np.asarray(params["encoder_weight"]).T
    rows, left = np.asarray(params["decoder_weight"]), np.zeros_like(RESIDUAL)
    rebuilt = np.zeros_like(RESIDUAL)
    for i in range(BATCH):
        order = np.argsort(-np.abs(z[i]))
        left[i] = RESIDUAL[i] - z[i, order[:2]] @ rows[order[:2]]
        rebuilt[i] = z[i, order[:3]] @ rows[order[:3]]
    assert np.any(z < -0.5)
    expected = np.mean(np.sum((left - rebuilt) ** 2, axis=1))
    assert float(terms["aux"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("help", ["auxk", "pre_activation"])
def test_gates_that_are_closed_on_a_whole_batch_learn_from_help(help, samples):
    settings = lane_settings("gated", d_hidden=6, dead_units=help, dead_after=1)
    model, s = settings.architecture, settings.model
    params = model.init(jax.random.key(0), 16, s) | {"gate_bias": jnp.full(6, -9.0)}
    state = model.memory(s)
    if help == "auxk":
        state = dataclasses.replace(state, silence=dead.DeadUnits(jnp.full(6, 9, jnp.int32)))
    step = Step(jnp.asarray(samples[:32]), jnp.asarray(samples[:32]))
    slope = jax.grad(lambda params: sum(model.loss(params, state, step, s)[0].values()))(params)
    assert np.all(np.asarray(slope["gate_bias"]) != 0)

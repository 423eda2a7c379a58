"""Full-batch L-BFGS."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.settings import UserError
from sae_jax.training import lbfgs
from sae_jax.training.config import check_exact, lane_settings
from sae_jax.training.step import init_state

SCALES = jnp.asarray([1.0, 5.0, 30.0])
START = jnp.asarray([4.0, -3.0, 2.0])


def value(w):
    return 0.5 * jnp.sum(SCALES * jnp.square(w - 1))


def after(steps, pairs, value, w):
    """Where so many steps lead that remember so many before them."""
    optimizer = lbfgs.optimizer(pairs)

    @jax.jit
    def step(w, state):
        loss, gradient = jax.value_and_grad(value)(w)
        updates, state = optimizer.update(gradient, state, w, value=loss, grad=gradient, value_fn=value)
        return w + updates, state

    state = optimizer.init(w)
    for _ in range(steps):
        w, state = step(w, state)
    return w


def test_lbfgs_reaches_the_minimum_of_a_quadratic_within_as_many_steps_as_dimensions():
    np.testing.assert_allclose(after(12, 10, value, START), 1, atol=1e-3)


def test_an_optimizer_of_lanes_takes_the_same_steps_and_knows_the_rest_of_the_loss():
    def loss(params):
        return value(params["w"]), {"double": 2 * value(params["w"])}

    params, plain = {"w": START}, START
    training = lane_settings(optimizer="lbfgs", estimator="batch", history_size=2).training
    optimizer = lbfgs.optimizer(2)
    plain_state = optimizer.init(plain)
    state = lbfgs.init(params, training, lambda: {"double": jnp.float32(0)})
    for _ in range(6):
        before, gradient = jax.value_and_grad(value)(plain)
        step, plain_state = optimizer.update(gradient, plain_state, plain, value=before, grad=gradient, value_fn=value)
        proposal = lbfgs.propose(loss, params, state, training, 0.0, lambda gradients: gradients)
        updates, state = proposal.update()
        np.testing.assert_allclose(proposal.loss, before, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(proposal.rest["double"], 2 * before, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(proposal.gradients["w"], gradient, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(updates["w"], step, rtol=1e-4, atol=1e-5)
        params, plain = {"w": params["w"] + updates["w"]}, plain + step


def test_minimize_ends_at_the_minimum_or_after_its_steps():
    minimum = lbfgs.minimize(lambda tree: value(tree["w"]), {"w": START}, steps=50)
    np.testing.assert_allclose(minimum["w"], 1, atol=1e-5)
    early = lbfgs.minimize(lambda tree: value(tree["w"]), {"w": START}, steps=1)
    assert 1e-3 < float(value(early["w"])) < float(value(START))


def test_more_remembered_steps_come_nearer_to_the_minimum_of_a_long_valley():
    scales = np.geomspace(1, 1e4, 60)

    def value(w):
        return 0.5 * jnp.sum(scales * jnp.square(w))

    assert value(after(60, 60, value, jnp.ones(60))) < 0.3 * value(after(60, 5, value, jnp.ones(60)))


@pytest.mark.parametrize(
    ("history_size", "numbers", "pairs"),
    [(0, 3_289, 100), (0, 2**30 // 8 // 50, 50), (0, 2**40, 10), (7, 3_289, 7), (1000, 2**40, 1000)],
)
def test_as_many_steps_are_remembered_as_the_setting_says_or_memory_holds(history_size, numbers, pairs):
    assert lbfgs.pairs_of(history_size, numbers) == pairs


def test_the_state_of_a_lane_holds_that_many_steps():
    def held(**settings):
        chosen = lane_settings(optimizer="lbfgs", estimator="batch", d_hidden=3, **settings)
        state = init_state(jax.random.key(0), chosen, 4).opt_state
        return {leaf.shape[0] for leaf in jax.tree.leaves(state) if leaf.ndim == 2}

    assert held() == {100} and held(history_size=6) == {6}


@pytest.mark.parametrize(
    "settings", [{}, {"estimator": "batch", "corruption": "gaussian"}, {"estimator": "batch", "products": "bfloat16"}]
)
def test_lbfgs_refuses_a_loss_that_does_not_stand_still(settings):
    with pytest.raises(UserError, match="optimizer lbfgs needs the exact gradient of one fixed loss"):
        init_state(jax.random.key(0), lane_settings(optimizer="lbfgs", d_hidden=3, **settings), 4)


@pytest.mark.parametrize(
    ("model", "settings", "line"),
    [
        ("relu", {"target_l0": 2.0}, "got target_l0 2.0; use target_l0 0$"),
        ("gated", {"rows": "free"}, "got auxiliary_decoder False; use auxiliary_decoder True$"),
        ("batch_topk", {"target_rate": 0.1}, "got target_rate 0.1; use target_rate 0$"),
        ("matryoshka", {"target_rate": 0.1}, "got target_rate 0.1; use target_rate 0$"),
        ("jumprelu", {}, "got jumprelu, whose jumps have none; use adam or sgd$"),
        ("relu", {}, None),
        ("gated", {"rows": "free", "auxiliary_decoder": True}, None),
        ("batch_topk", {}, None),
        ("topk", {"target_l0": 2.0}, None),
    ],
)
def test_of_dictionaries_it_trains_those_whose_gradient_is_that_of_one_loss(model, settings, line):
    chosen = lane_settings(model, optimizer="lbfgs", **settings)  # What was trained so before is read.
    with pytest.raises(UserError, match=line) if line else contextlib.nullcontext():
        check_exact(chosen)

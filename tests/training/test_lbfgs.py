"""Full-batch L-BFGS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.settings import UserError
from sae_jax.training import lbfgs
from sae_jax.training.config import lane_settings

SCALES = jnp.asarray([1.0, 5.0, 30.0])
START = jnp.asarray([4.0, -3.0, 2.0])


def value(w):
    return 0.5 * jnp.sum(SCALES * jnp.square(w - 1))


def test_lbfgs_reaches_the_minimum_of_a_quadratic_within_as_many_steps_as_dimensions():
    optimizer, w = lbfgs.optimizer(), START
    state = optimizer.init(w)
    for _ in range(12):
        loss, gradient = jax.value_and_grad(value)(w)
        updates, state = optimizer.update(gradient, state, w, value=loss, grad=gradient, value_fn=value)
        w = w + updates
    np.testing.assert_allclose(w, 1, atol=1e-3)


def test_an_optimizer_of_lanes_takes_the_same_steps_and_knows_the_rest_of_the_loss():
    def loss(params):
        return value(params["w"]), {"double": 2 * value(params["w"])}

    params, plain = {"w": START}, START
    optimizer = lbfgs.optimizer()
    plain_state = optimizer.init(plain)
    state = lbfgs.init(params, lambda: {"double": jnp.float32(0)})
    for _ in range(6):
        before, gradient = jax.value_and_grad(value)(plain)
        step, plain_state = optimizer.update(gradient, plain_state, plain, value=before, grad=gradient, value_fn=value)
        proposal = lbfgs.propose(loss, params, state, None, 0.0, lambda gradients: gradients)
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


@pytest.mark.parametrize(
    "settings", [{}, {"estimator": "batch", "corruption": "gaussian"}, {"estimator": "batch", "products": "bfloat16"}]
)
def test_lbfgs_refuses_a_loss_that_does_not_stand_still(settings):
    with pytest.raises(UserError, match="optimizer lbfgs needs the exact gradient of one fixed loss"):
        lane_settings(optimizer="lbfgs", **settings)

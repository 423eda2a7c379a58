"""A term and a measure that a user adds to a model, without touching the package."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import sae_jax
from sae_jax import CLASSIC, Measure, Term
from sae_jax.models import classic
from sae_jax.settings import NON_NEGATIVE, swept


@struct.dataclass
class Settings(classic.Settings):
    """Settings of the classic family, and the weight of one more penalty."""

    student_t: Any = swept(0.0, NON_NEGATIVE, "weight of the Student-t penalty on the codes", off=0.0)


def terms(s):
    more = {} if s.student_t is None else {"student_t": Term("student_t * mean sum_j log(1 + h_j^2)", "nat")}
    return CLASSIC.terms(s) | more


def loss(params, memory, step, s):
    values, batch_mean = CLASSIC.loss(params, memory, step, s)
    if s.student_t is not None:
        codes = CLASSIC.encode(params, step.x, s)
        values["student_t"] = s.student_t * jnp.mean(jnp.sum(jnp.log1p(jnp.square(codes)), axis=1))
    return values, batch_mean


def gini(lane):
    """Half the mean absolute difference of two units' mean activations, in units of their mean."""
    means = jnp.mean(lane.codes, axis=0)
    return jnp.mean(jnp.abs(means[:, None] - means[None, :])) / (2 * jnp.mean(means))


MINE = CLASSIC._replace(
    name="student_t",
    Settings=Settings,
    terms=terms,
    loss=loss,
    measures=lambda s: CLASSIC.measures(s) | {"gini": Measure(gini, "Gini coefficient of the mean activations")},
)


@pytest.fixture(scope="module")
def trained(samples):
    return sae_jax.sweep(samples, MINE, student_t=[0.0, 0.1], d_hidden=6, steps=40, batch_size=32, seeds=2)


def test_its_setting_is_an_axis_and_its_term_a_curve(trained):
    assert trained["student_t"].values.tolist() == pytest.approx([0, 0.1])
    assert trained["student_t"].attrs["long_name"] == "weight of the Student-t penalty on the codes"
    curve = trained["loss_student_t"]
    assert curve.dims == ("student_t", "seed", "step")
    assert (curve.attrs["units"], curve.attrs["kind"]) == ("nat", "curve") and "log(1 + h_j^2)" in curve.attrs[
        "long_name"
    ]
    np.testing.assert_array_equal(curve.sel(student_t=0.0), 0)
    assert np.all(curve.isel(student_t=1) > 0)
    penalty = ["reconstruction", "kl", "weight_decay", "student_t"]
    total = sum(trained[f"loss_{name}"] for name in penalty)
    np.testing.assert_allclose(trained["loss"], total, rtol=1e-5)


def test_its_penalty_is_trained_against(trained):
    # Codes are driven to 0, where the penalty is.
    free, held = (trained["eval_mean_activation"].isel(student_t=i).mean() for i in (0, 1))
    assert held < free - 1e-4
    assert np.any(trained["encoder_weight"].isel(student_t=0) != trained["encoder_weight"].isel(student_t=1))


def test_its_measure_is_a_variable_with_label_and_units(trained):
    measure = trained["eval_gini"]
    assert measure.dims == ("student_t", "seed")
    assert measure.attrs == {"long_name": "Gini coefficient of the mean activations", "units": "1", "kind": "measure"}
    means = np.asarray(trained["eval_mean_activation"], np.float64)
    differences = np.abs(means[..., :, None] - means[..., None, :]).mean(axis=(-2, -1))
    np.testing.assert_allclose(measure, differences / (2 * means.mean(axis=-1)), rtol=1e-4)


def test_without_its_setting_it_is_the_classic_model(samples, trained):
    plain = sae_jax.sweep(samples, d_hidden=6, steps=40, batch_size=32, seeds=2)
    mine = sae_jax.sweep(samples, MINE, d_hidden=6, steps=40, batch_size=32, seeds=2)
    assert set(mine) - set(plain) == {"eval_gini"} and "loss_student_t" in trained
    for name in plain:
        np.testing.assert_array_equal(mine[name], plain[name])

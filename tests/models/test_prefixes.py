"""Nested prefixes against literal references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, Step, prefixes
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings

RNG = np.random.default_rng(0)
D_IN, UNITS, BATCH = 5, 12, 7
CODES = np.maximum(RNG.normal(size=(BATCH, UNITS)), 0).astype(np.float32)
TARGET = RNG.normal(size=(BATCH, D_IN)).astype(np.float32)
DECODER = RNG.normal(size=(UNITS, D_IN)).astype(np.float32)
BIAS = RNG.normal(size=D_IN).astype(np.float32)
PARAMS = {"decoder_weight": jnp.asarray(DECODER), "decoder_bias": jnp.asarray(BIAS)}


def error(size):
    """Mean squared error of the first units alone; the bias is in every prefix."""
    left = TARGET - (CODES[:, :size].astype(float) @ DECODER[:size] + BIAS)
    return np.mean(np.sum(left**2, axis=1))


@pytest.mark.parametrize(
    ("text", "d_hidden", "expected"),
    [
        ("", 12, (12,)),
        ("3,6", 12, (3, 6, 12)),
        ("3,6,12", 12, (3, 6, 12)),
        ("1/4,1/2", 12, (3, 6, 12)),
        ("0.25,1/2", 12, (3, 6, 12)),
        ("1/32,3/32,7/32,15/32", 65_536, (2048, 6144, 14_336, 30_720, 65_536)),
        ("1", 12, (1, 12)),
        # Shares of few units: at least one, and each width once.
        ("1/100", 12, (1, 12)),
        ("1/16,1/8,1/4,1/2", 9, (1, 2, 4, 9)),
    ],
)
def test_widths_are_numbers_of_units_or_shares_of_them(text, d_hidden, expected):
    assert prefixes.widths(text, d_hidden) == expected


@pytest.mark.parametrize("text", ["6,3", "3,3", "13", "0", "2.5", "a", "1/0", "1/2,1/4"])
def test_widths_that_do_not_nest_or_are_none_are_refused(text):
    with pytest.raises(UserError, match=r"^prefixes must "):
        prefixes.widths(text, 12)


@pytest.mark.parametrize(("text", "expected"), [("drawn:5", 5), ("drawn:64", 64), ("3,6", 0), ("", 0)])
def test_how_many_prefixes_are_drawn(text, expected):
    assert prefixes.drawn(text) == expected


@pytest.mark.parametrize("text", ["drawn:0", "drawn:65", "drawn:", "drawn:x", "drawn"])
def test_a_number_of_prefixes_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"^prefixes that are drawn must be from 1 to 64"):
        prefixes.drawn(text)


@pytest.mark.parametrize("sizes", [(12,), (3, 6, 12), (1, 2, 11, 12)])
def test_nested_errors_are_those_of_each_prefix_alone(sizes):
    errors, residual = prefixes.nested_errors(PARAMS, jnp.asarray(CODES), jnp.asarray(TARGET), sizes)
    np.testing.assert_allclose(errors, [error(size) for size in sizes], rtol=1e-5)
    np.testing.assert_allclose(residual, TARGET - CODES @ DECODER - BIAS, atol=1e-5)


def test_drawn_errors_are_those_of_each_prefix_alone():
    sizes = [1, 4, 12]
    found = prefixes.drawn_errors(PARAMS, jnp.asarray(CODES), jnp.asarray(TARGET), jnp.asarray(sizes, jnp.float32))
    np.testing.assert_allclose(found, [error(size) for size in sizes], rtol=1e-5)


def sizes_of(number, count, d_hidden):
    step = Step(TARGET, TARGET, jnp.int32(number))
    return np.asarray(prefixes.drawn_sizes(step, count, d_hidden))


def test_drawn_sizes_follow_the_step_and_end_with_all_units():
    first, second = sizes_of(0, 5, 1000), sizes_of(1, 5, 1000)
    np.testing.assert_array_equal(first, sizes_of(0, 5, 1000))
    assert np.any(first != second)
    for sizes in (first, second):
        assert sizes[-1] == 1000 and np.all((sizes >= 1) & (sizes <= 1000) & (sizes == np.round(sizes)))


def test_drawn_sizes_have_the_distribution_of_a_truncated_pareto_law():
    """P(size <= m) = (1 - m^-1/2) / (1 - n^-1/2)."""
    n = 100
    found = np.concatenate([sizes_of(number, 64, n)[:-1] for number in range(60)])
    for m in (2, 5, 20, 60):
        expected = (1 - m**-0.5) / (1 - n**-0.5)
        assert np.mean(found <= m) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(found)))


@pytest.mark.parametrize("text", ["3,6", "drawn:4"])
@pytest.mark.parametrize("form", ["mean", "sum"])
def test_the_reconstruction_term_is_their_mean_or_sum(text, form):
    settings = lane_settings("relu", d_hidden=UNITS, prefixes=text, prefix_errors=form)
    step = Step(jnp.asarray(TARGET), jnp.asarray(TARGET), jnp.int32(3))
    term, residual = prefixes.reconstruction(PARAMS, jnp.asarray(CODES), step, settings.model)
    sizes = [3, 6, 12] if text == "3,6" else sizes_of(3, 4, UNITS).astype(int)
    errors = [error(size) for size in sizes]
    assert float(term) == pytest.approx(np.sum(errors) if form == "sum" else np.mean(errors), rel=1e-5)
    np.testing.assert_allclose(residual, TARGET - CODES @ DECODER - BIAS, atol=1e-5)
    assert f"{form} over {len(sizes)} prefixes" in MODELS["relu"].terms(settings.model)["reconstruction"].label


def test_a_unit_learns_from_every_prefix_that_holds_it():
    settings = lane_settings("relu", d_hidden=UNITS, prefixes="3,6", prefix_errors="sum")
    step = Step(jnp.asarray(TARGET), jnp.asarray(TARGET))

    def term(params):
        return prefixes.reconstruction(params, jnp.asarray(CODES), step, settings.model)[0]

    found = jax.grad(term)(PARAMS)["decoder_weight"]
    expected = np.zeros((UNITS, D_IN))
    for size in (3, 6, 12):
        left = TARGET - CODES[:, :size] @ DECODER[:size] - BIAS
        expected[:size] += -2 * CODES[:, :size].T @ left / BATCH
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

"""Pre-activations and codes stored in bfloat16: which are chosen, what a step keeps of them, and what is learned."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import sae_jax
from sae_jax.models import ARCHITECTURES, MODELS, dead
from sae_jax.models.base import Across, Step
from sae_jax.models.selection import largest, largest_of_batch
from sae_jax.training.config import lane_settings

DICTIONARIES = [model.name for model in ARCHITECTURES if model.name != "classic"]
HELP = ("auxk", "pre_activation", "pre_activation_dead", "resampling")
STORED = {"products": "bfloat16", "activation_dtype": "bfloat16"}
TIED = np.random.default_rng(0).integers(-3, 4, (400, 64)).astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("k", [1, 5, 33, 64])
def test_as_many_as_are_asked_for_are_chosen_among_equal_values(k: int) -> None:
    chosen = np.asarray(largest(jnp.asarray(TIED), k))
    assert np.all(chosen.sum(axis=1) == k)
    for values, mask in zip(TIED.astype(np.float32), chosen, strict=True):
        assert values[mask].min() >= np.max(values[~mask], initial=-np.inf)


def test_no_unit_comes_first_among_equals_at_every_value() -> None:
    """Of 64 units with the same value, 32 are kept: over 200 values each unit about 100 times."""
    values = np.linspace(1, 400, 200).astype(ml_dtypes.bfloat16)[:, None] * np.ones((1, 64), ml_dtypes.bfloat16)
    distinct = np.unique(values[:, 0]).size
    counts = np.asarray(largest(jnp.asarray(values), 32)).sum(axis=0) / 200
    assert distinct > 150
    assert np.all(np.abs(counts - 0.5) < 0.2)


def test_a_batch_over_devices_chooses_what_the_whole_one_does() -> None:
    values = jnp.asarray(np.random.default_rng(1).normal(size=(256, 64)).astype(ml_dtypes.bfloat16))
    whole = np.asarray(largest_of_batch(values, 900, Across()))
    # Samples with the same value of the same unit stay together.
    assert 900 <= whole.sum() <= 903
    assert np.asarray(values, np.float32)[whole].min() >= np.asarray(values, np.float32)[~whole].max()
    parts = jax.vmap(lambda part: largest_of_batch(part, 900, Across("batch")), axis_name="batch")(
        values.reshape(4, 64, 64)
    )
    np.testing.assert_array_equal(np.asarray(parts).reshape(256, 64), whole)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in DICTIONARIES),
        *((name, {"dead_units": help}) for name in ("relu", "batch_topk") for help in HELP),
        ("matching_pursuit", {"dead_units": "auxk"}),
        ("jumprelu", {"penalty": "tanh"}),
        ("jumprelu", {"target_rate": 0.1}),
        ("topk", {"prefixes": "1/4,1/2"}),
        ("topk", {"prefixes": "drawn:3"}),
    ],
    ids=str,
)
def test_a_step_keeps_no_codes_in_float32_and_hands_on_gradients_in_it(
    name: str, settings: dict[str, Any], samples: np.ndarray
) -> None:
    x, units = jnp.asarray(samples[:50] - samples.mean(0)), 25
    if "k" in MODELS[name].Settings.__dataclass_fields__:
        settings = settings | {"k": 4}

    def gradients(**rounding: Any) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        s = lane_settings(name, d_hidden=units, dead_after=1, **settings, **rounding).model
        params = MODELS[name].init(jax.random.key(3), 16, s)
        memory = MODELS[name].memory(s)
        if memory.silence is not None:
            # A third of the units has been silent for long.
            silent = jnp.where(jnp.arange(units) % 3 == 0, 100, 0)
            memory = dataclasses.replace(memory, silence=dead.DeadUnits(silent))

        def loss(params: dict[str, jax.Array]) -> jax.Array:
            return sum(MODELS[name].loss(params, memory, Step(x, x), s)[0].values())

        _, pull = jax.vjp(loss, params)
        codes = [leaf for leaf in jax.tree.leaves(pull) if leaf.size % (len(x) * units) == 0]
        # What is 0 throughout is a constant of the program.
        return pull(jnp.float32(1))[0], [leaf for leaf in codes if np.any(leaf != 0)]

    exact, _ = gradients()
    rounded, residuals = gradients(**STORED)
    assert residuals
    assert {np.dtype(leaf.dtype).name for leaf in residuals} <= {"bfloat16", "bool"}
    for parameter, expected in exact.items():
        assert rounded[parameter].dtype == jnp.float32
        a, b = np.asarray(expected, np.float64).ravel(), np.asarray(rounded[parameter], np.float64).ravel()
        assert a @ b >= 0.98 * np.linalg.norm(a) * np.linalg.norm(b), parameter


def test_what_is_learned_is_what_float32_learns(samples: np.ndarray) -> None:
    learned = sae_jax.sweep(
        samples,
        model=["batch_topk", "jumprelu"],
        activation_dtype=["float32", "bfloat16"],
        products="bfloat16",
        target_l0=4.0,
        d_hidden=32,
        steps=600,
        learning_rate=3e-3,
        batch_size=128,
        seeds=1,
    )
    for measure, tolerance in (("eval_explained_variance", 0.02), ("eval_l0", 0.2)):
        difference = learned[measure].diff("activation_dtype")
        assert float(abs(difference).max()) < tolerance
        assert float(abs(difference).min()) > 0
    assert float(learned["eval_explained_variance"].min()) > 0.5

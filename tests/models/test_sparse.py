"""Losses of codes that are a list against the same losses of all codes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import init_state, keys_of, lane_settings
from sae_jax.models.base import Across, Step
from sae_jax.models.choice import largest_of_samples, largest_of_whole
from sae_jax.sweeps.program import lists_of
from sae_jax.training.shapes import split
from tests.transforms import STEP

D_IN, BATCH, UNITS = 12, 32, 320
CASES: list[tuple[str, dict[str, Any]]] = [
    ("topk", {"k": 5}),
    ("topk", {"k": 2.5, "rescale": True}),
    ("topk", {"target_l0": 4.0, "prefixes": "drawn:3"}),
    ("topk", {"k": 5, "dead_units": "auxk", "dead_after": 1}),
    ("topk", {"k": 5, "dead_units": "auxk", "dead_after": 1000}),
    ("abs_topk", {"k": 5}),
    ("abs_topk", {"k": 5, "dead_units": "auxk", "dead_after": 1}),
    ("batch_topk", {"k": 2.3}),
    ("batch_topk", {"k": 5, "rescale": True, "dead_units": "resampling", "dead_after": 1, "rows": "unit"}),
    ("matryoshka", {"k": 5}),
    ("topk", {"k": 5, "outputs": 4, "skip": True, "dead_units": "auxk", "dead_after": 1}),
    ("batch_topk", {"k": 2.3, "outputs": 6, "rescale": True}),
    ("matryoshka", {"k": 5, "prefix_errors": "sum", "dead_units": "auxk", "aux_form": "full", "dead_after": 1}),
]


def case(model: str, extra: dict[str, Any]) -> tuple[Any, Any, Any, jax.Array]:
    """A lane's settings, parameters, memory in which a third of the units are dead, and a batch."""
    settings = lane_settings(model=model, d_hidden=UNITS, steps=100, **{"k_warmup": 0.0, **extra})
    keys = jax.random.split(jax.random.key(1), 5)
    params = settings.architecture.init(keys[0], D_IN, settings.model)
    params["decoder_bias"] = 0.1 * jax.random.normal(keys[1], params["decoder_bias"].shape)
    params["encoder_bias"] = 0.1 * jax.random.normal(keys[2], (UNITS,))
    params["decoder_weight"] *= jnp.exp(0.3 * jax.random.normal(keys[3], (UNITS, 1)))
    memory = settings.architecture.memory(settings.model)
    if memory.silence is not None:
        silent = jnp.where(jnp.arange(UNITS) % 3 == 0, 50, 0)
        memory = dataclasses.replace(memory, silence=dataclasses.replace(memory.silence, silent=silent))
    return settings, params, memory, jax.random.normal(keys[4], (BATCH, D_IN))


def sparse_of(settings: Any) -> Any:
    """The loss of a lane's codes as a list."""
    model = settings.architecture
    return model.sparse(model.loss, jax.tree.map(lambda leaf: np.asarray(leaf)[None], settings.model))


def computed(loss: Any, settings: Any, params: Any, memory: Any, x: jax.Array, *numbers: int) -> Any:
    """(terms, what was seen, gradients) of a step, or of each of several numbers of it."""

    @jax.jit
    def at(number: jax.Array) -> Any:
        def total(params: Any) -> Any:
            terms, seen = loss(params, memory, Step(*split(x, settings), number, 100), settings.model)
            return sum(terms.values()), (terms, seen)

        (_, (terms, seen)), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return terms, seen, gradients

    return [at(np.int32(number)) for number in numbers] if numbers else at(np.int32(5))


def assert_same(one: Any, other: Any, tolerance: float = 1e-6) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.dtype == bool:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(a)))


@pytest.mark.parametrize(("model", "extra"), CASES)
def test_sparse_is_dense(model: str, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, params, memory, x = case(model, extra)
    sparse = sparse_of(settings)
    dense = computed(settings.architecture.loss, settings, params, memory, x)
    # Neither side may be computed by the other's branch.
    monkeypatch.setattr(jax.lax, "switch", always_by_list(jax.lax.switch))
    assert_same(dense, computed(sparse, settings, params, memory, x))


def always_by_list(switch: Any) -> Any:
    """`lax.switch` that never takes its second branch, where all codes are multiplied, but the first instead."""

    def taken(place: Any, branches: Any, *operands: Any) -> Any:
        few, _, *others = branches
        return switch(place, [few, few, *others], *operands)

    return taken


@pytest.mark.parametrize("help_of", [{}, {"dead_units": "auxk", "dead_after": 1}])
@pytest.mark.parametrize("model", ["topk", "batch_topk"])
def test_falling_k(model: str, help_of: dict[str, Any]) -> None:
    """While more units are active than the list has room for, all are multiplied, whether units are dead or not."""
    settings, params, memory, x = case(model, {"k": 5, "k_warmup": 0.5, **help_of})
    numbers = (0, 20, 49, 50)
    dense = computed(settings.architecture.loss, settings, params, memory, x, *numbers)
    sparse = computed(sparse_of(settings), settings, params, memory, x, *numbers)
    for one, other in zip(dense, sparse, strict=True):
        assert_same(one, other)
    _, at_20, _, at_50 = (float(seen.l0) for _, seen, _ in sparse)
    assert at_20 > 50 and at_50 <= 5


@pytest.mark.parametrize(("model", "extra"), CASES)
def test_split_batch(model: str, extra: dict[str, Any]) -> None:
    """Shares of a batch on several devices, their gradients averaged, are the whole batch."""
    settings, params, memory, x = case(model, extra)
    sparse = sparse_of(settings)
    whole = computed(sparse, settings, params, memory, x)

    def share(part: jax.Array) -> Any:
        step = lambda params: sparse(  # noqa: E731
            params, memory, Step(*split(part, settings), jnp.int32(5), 100, Across("batch")), settings.model
        )

        def total(params: Any) -> Any:
            terms, seen = step(params)
            return sum(terms.values()), (terms, seen)

        (_, (terms, seen)), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return jax.lax.pmean(terms, "batch"), seen, jax.lax.pmean(gradients, "batch")

    shares = jax.jit(jax.vmap(share, axis_name="batch"))(x.reshape(4, -1, D_IN))
    assert_same(whole, jax.tree.map(lambda leaf: leaf[0], shares), 3e-6)


def test_where_all_are_multiplied() -> None:
    """A list is made where it is faster, and where no term needs every code."""
    for model, extra in (
        ("topk", {"k": 11}),
        ("topk", {"k": 5, "products": "bfloat16"}),
        ("topk", {"k": 5, "dead_units": "pre_activation"}),
        ("batch_topk", {"k": 5, "target_rate": 0.01}),
        ("relu", {}),
        ("classic", {}),
    ):
        settings = lane_settings(model=model, d_hidden=UNITS, **extra)
        assert sparse_of(settings) is None, (model, extra)
    several = lane_settings(model=["topk", "relu"], d_hidden=UNITS, k=5)
    assert sparse_of(several) is not None


def test_no_list_is_made_of_more_codes_than_a_number_tells_apart() -> None:
    for batch_size, listed in ((2**11, True), (2**12, False)):
        settings = lane_settings(model="topk", d_hidden=2**20, k=5, batch_size=batch_size)
        assert (lists_of(settings) is not None) == listed


def test_most_of_all_lanes() -> None:
    """One function serves lanes of several k, whose list has room for the most of them."""
    settings = lane_settings(model="topk", d_hidden=UNITS, k=5, k_warmup=0.0)
    cells = dataclasses.replace(settings.model, k=np.array([2.0, 7.5, 5.0]))
    topk = settings.architecture
    shared = topk.sparse(topk.loss, cells)
    assert shared is topk.sparse(topk.loss, dataclasses.replace(cells, k=np.array([8.0])))
    for k in (2.0, 7.5):
        lane, params, memory, x = case("topk", {"k": k})
        dense = computed(lane.architecture.loss, lane, params, memory, x)
        assert_same(dense, computed(shared, lane, params, memory, x))


@pytest.mark.parametrize("model", ["topk", "abs_topk", "batch_topk", ["topk", "batch_topk"]])
def test_a_loss_of_ones_own_is_not_replaced(model: Any) -> None:
    settings = lane_settings(model=model, d_hidden=UNITS, k=5)
    assert sparse_of(settings) is not None
    theirs = settings.architecture._replace(loss=lambda *arguments: settings.architecture.loss(*arguments))
    assert theirs.sparse(theirs.loss, settings.model) is None


def test_equal_units() -> None:
    """Units of equal rows are chosen together, of which a list has no room for some."""
    settings, params, memory, x = case("topk", {"k": 4, "rescale": True})
    for name in ("encoder_weight", "encoder_bias", "decoder_weight"):
        params[name] = jnp.concatenate([params[name][: UNITS // 4]] * 4)
    dense = computed(settings.architecture.loss, settings, params, memory, x)
    assert float(dense[1].l0) == 4
    assert_same(dense, computed(sparse_of(settings), settings, params, memory, x))
    settings, params, memory, x = case("topk", {"k": 5})
    for name in ("encoder_weight", "encoder_bias"):
        params[name] = jnp.concatenate([params[name][: UNITS // 4]] * 4)
    dense = computed(settings.architecture.loss, settings, params, memory, x)
    assert float(dense[1].l0) == 8
    assert_same(dense, computed(sparse_of(settings), settings, params, memory, x))


def chosen_by(choose: Any, *arguments: Any) -> Any:
    """What one choice is, as arrays of NumPy; numbers are no arguments of the program."""
    return jax.tree.map(np.asarray, jax.jit(choose, static_argnums=(2, 3, 4))(*arguments, Across()))


def test_choice_of_samples() -> None:
    strength = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    choice = chosen_by(largest_of_samples, strength * 2, strength, 3, 4)
    expected = {(i, int(u)) for i, row in enumerate(strength) for u in np.argsort(-row)[:3]}
    listed = {(int(i), int(u)) for i, u, on in zip(choice.samples, choice.units, choice.chosen, strict=True) if on}
    assert listed == expected and bool(choice.complete)
    assert np.all(np.diff(choice.units) >= 0)
    np.testing.assert_array_equal(choice.pre_activations, strength[choice.samples, choice.units] * 2)
    assert not bool(chosen_by(largest_of_samples, strength, strength, 5, 4).complete)


def test_choice_of_whole() -> None:
    strength = np.maximum(np.random.default_rng(0).normal(size=(6, 80)), 0).astype(np.float32)
    choice = chosen_by(largest_of_whole, strength, strength, 12, 2)
    expected = set(np.argsort(-strength.reshape(-1))[:12].tolist())
    listed = (choice.samples * 80 + choice.units)[choice.chosen]
    assert sorted(listed.tolist()) == sorted(expected) and bool(choice.complete)


def test_choice_among_equals() -> None:
    """Those that are equal to the smallest of the chosen are chosen too."""
    strength = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32)
    best = np.argsort(-strength[2])
    strength[2, best[3:6]] = strength[2, best[3]]
    choice = chosen_by(largest_of_samples, strength, strength, 4, 4)
    assert bool(choice.complete) and choice.chosen.sum() == 22
    assert set(choice.units[choice.chosen & (choice.samples == 2)].tolist()) == set(best[:6].tolist())
    strength[2] = 1
    assert not bool(chosen_by(largest_of_samples, strength, strength, 4, 4).complete)


@pytest.mark.parametrize("total", [4256, 4257, 4352, 4353])
def test_a_list_is_complete_only_where_it_holds_all(total: int) -> None:
    """It has room for 4 x 1000 + 256 codes, which is no whole number of turns."""
    strength = np.random.default_rng(0).normal(size=(1000, 128)).astype(np.float32)
    choice = chosen_by(largest_of_whole, strength, strength, total, 4)
    assert bool(choice.complete) == (total == 4256) and choice.chosen.sum() == 4256


@pytest.mark.parametrize("choose", [largest_of_samples, largest_of_whole])
def test_none_and_nan_are_left_to_all_codes(choose: Any) -> None:
    strength = np.random.default_rng(0).normal(size=(6, 128)).astype(np.float32)
    assert bool(chosen_by(choose, strength, strength, 1, 4).complete)
    if choose is largest_of_samples:
        assert not bool(chosen_by(choose, strength, strength, 0, 4).complete)
    strength[2, 5] = np.nan
    assert not bool(chosen_by(choose, strength, strength, 1, 4).complete)


def test_choice_of_samples_whose_largest_lie_in_one_group() -> None:
    """Of too many the list is incomplete: the bound lies below what others have."""
    rows = np.random.default_rng(0).uniform(0.1, 0.2, size=(6, 1280)).astype(np.float32)
    for inside, complete in ((8, True), (16, False)):
        strength = rows.copy()
        strength[3, np.arange(inside) * 80] += 1
        choice = chosen_by(largest_of_samples, strength, strength, 10, 10)
        assert bool(choice.complete) == complete
        listed = {(int(i), int(u)) for i, u in zip(choice.samples, choice.units, strict=True)}
        expected = {(i, int(u)) for i, row in enumerate(strength) for u in np.argsort(-row)[:10]}
        assert listed >= expected or not complete


@pytest.mark.parametrize(
    ("batch", "most", "active", "total", "complete"),
    [
        pytest.param(12, 40, {0: 639, 2: 70}, 709, True, id="crowded samples"),
        pytest.param(12, 40, {0: 640, 2: 160}, 800, False, id="more than there is room for"),
        pytest.param(64, 5, {i: 4 + i % 3 for i in range(64)}, 300, True, id="all alike"),
        pytest.param(64, 5, {0: 640, 9: 640}, 320, False, id="many more reach the bound"),
    ],
)
def test_choice_of_crowded_samples(batch: int, most: int, active: dict[int, int], total: int, complete: bool) -> None:
    strength = np.full((batch, 640), -1, np.float32)
    for i, count in active.items():
        strength[i, np.arange(count) * 7 % 640] = batch * np.arange(count) + i + 1
    choice = chosen_by(largest_of_whole, strength, strength, total, most)
    assert bool(choice.complete) == complete
    if complete:
        listed = choice.samples[choice.chosen] * 640 + choice.units[choice.chosen]
        expected = np.argsort(-strength.reshape(-1))[:total]
        assert sorted(listed.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("model", ["relu", "topk", "batch_topk"])
def test_auxk_in_full_with_double_precision_at_hand(model: str) -> None:
    """Counts of units are then of 64 bits, and the term stays of the parameters' precision."""
    settings = lane_settings(model=model, d_hidden=20, dead_units="auxk", aux_form="full", dead_after=1)
    with jax.enable_x64(True):
        keys = keys_of(jax.random.key(0))
        state = jax.jit(init_state, static_argnums=2)(keys.init, settings, 4)
        batch = jax.random.normal(keys.batches, (8, 4), jnp.float32)
        silence = dataclasses.replace(state.memory.silence, silent=jnp.full(20, 50, jnp.int32))
        state = dataclasses.replace(state, memory=dataclasses.replace(state.memory, silence=silence))
        _, curves = STEP(settings, state, batch)
        assert curves["loss_aux"].dtype == jnp.float32 and float(curves["loss_aux"]) > 0

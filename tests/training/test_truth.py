"""Measures against a known dictionary: each equals what loops over its definition give, and 1 for the dictionary."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import DataConfig, lane_settings, load
from sae_jax.data import Truth
from sae_jax.training import truth as measures

RNG = np.random.default_rng(0)
SAMPLES, INPUTS = 40, 6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def example(units, features, seed=0):
    """Random rows, codes, activity, and a truth with two parents of two children each."""
    rng = np.random.default_rng(seed)
    firing = rng.random((SAMPLES, features)) < 0.4
    parents = np.full(features, -1)
    parents[2:6] = [0, 0, 1, 1]
    sizes = np.where(firing, rng.uniform(0.5, 1.5, firing.shape), 0)
    truth = Truth(unit(rng.normal(size=(features, INPUTS))), firing, sizes, parents)
    active = rng.random((SAMPLES, units)) < 0.4
    codes = np.where(active, rng.uniform(-1, 2, active.shape), 0)
    return rng.normal(size=(units, INPUTS)), codes, active, truth


def cosine(a, b):
    return abs(sum(x * y for x, y in zip(a, b, strict=True))) / np.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow(rows, codes, active, truth):
    """All measures by loops, and the matching by trying every one."""
    units, features = len(rows), len(truth.directions)
    like = [[cosine(row, direction) for direction in truth.directions] for row in rows]
    if units <= features:
        tried = [list(enumerate(chosen)) for chosen in itertools.permutations(range(features), units)]
    else:
        tried = [[(u, j) for j, u in enumerate(chosen)] for chosen in itertools.permutations(range(units), features)]
    pairs = max(tried, key=lambda pairs: sum(like[u][j] for u, j in pairs))
    nearest = [max(range(features), key=like[u].__getitem__) for u in range(units)]
    f1 = []
    for u in range(units):
        tp = sum(active[i, u] and truth.firing[i, nearest[u]] for i in range(SAMPLES))
        wrong = sum(active[i, u] != truth.firing[i, nearest[u]] for i in range(SAMPLES))
        f1.append(2 * tp / (2 * tp + wrong) if tp else 0.0)
    over = under = 0.0
    for (u, j), i in itertools.product(pairs, range(SAMPLES)):
        if active[i, u] and truth.firing[i, j]:
            over += codes[i, u] * float(rows[u] @ truth.directions[j]) * truth.magnitudes[i, j]
            under += truth.magnitudes[i, j] ** 2
    unit_of, absorbed, fired = {j: u for u, j in pairs}, 0, 0
    for parent, i in itertools.product((0, 1), range(SAMPLES)):
        children = [unit_of[j] for j in (2 * parent + 2, 2 * parent + 3) if j in unit_of]
        if parent in unit_of and children and truth.firing[i, parent]:
            fired += 1
            absorbed += not active[i, unit_of[parent]] and any(active[i, u] for u in children)
    return {
        "truth_mcc": np.mean([like[u][j] for u, j in pairs]),
        "truth_mmcs": np.mean([max(like[u][j] for u in range(units)) for j in range(features)]),
        "truth_uniqueness": len(set(nearest)) / units,
        "truth_f1": np.mean(f1),
        "truth_shrinkage": over / under,
        "truth_absorption": absorbed / fired if fired else np.nan,
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("units", "features"), [(7, 7), (5, 7), (8, 6)])
def test_every_measure_equals_a_slow_reference(units, features, seed):
    case = example(units, features, seed)
    found, expected = measures.against_truth(*case), slow(*case)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    assert 0 < found["truth_mcc"] < found["truth_mmcs"] < 1 or units != features


def test_each_function_is_what_the_whole_says():
    rows, codes, active, truth = example(7, 7)
    whole, like = measures.against_truth(rows, codes, active, truth), measures.likeness(rows, truth.directions)
    pairs = measures.matching(like)
    assert measures.mcc(like) == whole["truth_mcc"] and measures.mmcs(like) == whole["truth_mmcs"]
    assert measures.shrinkage(codes, active, rows, truth, pairs) == whole["truth_shrinkage"]
    assert measures.absorption(active, truth, pairs) == whole["truth_absorption"] > 0


def test_order_norms_and_signs_of_rows_change_nothing_where_codes_make_up_for_them():
    rows, codes, active, truth = example(7, 7)
    order, factors = RNG.permutation(7), RNG.uniform(0.5, 2, 7) * RNG.choice([-1, 1], 7)
    changed = rows[order] * factors[:, None], codes[:, order] / factors, active[:, order]
    before, after = (measures.against_truth(*case, truth) for case in ((rows, codes, active), changed))
    assert after == pytest.approx(before, rel=1e-9)
    # Without codes that make up for them, it is shrinkage alone that sees the norms.
    halved = measures.against_truth(0.5 * rows, codes, active, truth)
    assert halved.pop("truth_shrinkage") == pytest.approx(0.5 * before.pop("truth_shrinkage"))
    assert halved == pytest.approx(before)


def test_a_dead_unit_counts_as_0_and_so_does_a_row_of_norm_0():
    _, _, _, truth = example(6, 6)
    active, codes = truth.firing.copy(), truth.magnitudes.copy()
    active[:, 2], codes[:, 2] = False, 0
    found = measures.against_truth(truth.directions, codes, active, truth)
    assert found["truth_f1"] == pytest.approx(5 / 6) and found["truth_shrinkage"] == pytest.approx(1)
    rows = truth.directions.copy()
    rows[2] = 0
    assert measures.against_truth(rows, codes, active, truth)["truth_mcc"] == pytest.approx(5 / 6)


def test_two_units_of_one_feature_are_not_unique():
    _, _, _, truth = example(6, 6)
    rows = truth.directions[[0, 0, 1, 2, 3, 4]]
    found = measures.against_truth(rows, truth.magnitudes, truth.firing, truth)
    assert found["truth_uniqueness"] == pytest.approx(5 / 6) and found["truth_mmcs"] < 1


def test_where_nothing_fires_there_is_neither_shrinkage_nor_absorption_to_speak_of():
    rows, codes, active, truth = example(6, 6)
    silent = truth._replace(firing=np.zeros_like(truth.firing), magnitudes=np.zeros_like(truth.magnitudes))
    found = measures.against_truth(rows, codes, active, silent)
    assert np.isnan(found["truth_shrinkage"]) and np.isnan(found["truth_absorption"]) and found["truth_f1"] == 0
    assert np.isnan(measures.absorption(active, truth._replace(parents=None), measures.matching(np.eye(6))))


def test_absorption_counts_the_samples_on_which_a_childs_unit_fires_instead_of_its_parents():
    parents, directions = np.array([-1, 0, 0]), np.eye(3)
    firing = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    active = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]], bool)
    truth = Truth(directions, firing, firing.astype(float), parents)
    found = measures.against_truth(directions, active.astype(float), active, truth)
    assert found["truth_absorption"] == 2 / 4


@pytest.mark.parametrize("argument", ["", ":roots=2,branching=2,depth=2,firing=linear,features=20,inputs=20"])
def test_the_true_dictionary_is_found_to_be_true(argument):
    data = load(DataConfig(dataset=f"superposition{argument}", samples=9000))
    truth = data.truth
    order = RNG.permutation(len(truth.directions))
    found = measures.against_truth(
        3 * truth.directions[order], truth.magnitudes[:, order] / 3, truth.firing[:, order], truth
    )
    perfect = {name: 1.0 for name in found} | ({"truth_absorption": 0.0} if argument else {})
    assert found == pytest.approx(perfect, abs=1e-5) and ("truth_absorption" in found) == bool(argument)


def test_a_lane_that_holds_the_true_dictionary_recovers_everything_and_piece_by_piece(monkeypatch):
    # As many inputs as features: orthogonal directions, which a linear encoder reads off exactly.
    data = load(DataConfig(dataset="superposition:features=12,inputs=12,apart_steps=2000,bias=.3", samples=9000))
    truth, bias = data.truth, data.heldout[~data.truth.firing.any(axis=1)][0]
    np.testing.assert_allclose(truth.directions @ truth.directions.T, np.eye(12), atol=1e-3)
    params = {
        "encoder_weight": truth.directions,
        "encoder_bias": np.full(12, -0.01, np.float32),
        "decoder_weight": truth.directions,
        "decoder_bias": bias,
    }
    settings = lane_settings("relu", d_hidden=12)
    found = measures.lane_against_truth(params, data.heldout, settings, truth)
    exact = {"truth_mcc": 1, "truth_mmcs": 1, "truth_uniqueness": 1, "truth_f1": 1}
    assert found.pop("truth_shrinkage") == pytest.approx(0.99, abs=3e-3)
    assert found == pytest.approx(exact, abs=2e-3)
    monkeypatch.setattr(measures, "PIECE", 12 * 7)
    pieces = measures.lane_against_truth(params, data.heldout, settings, truth)
    assert pieces | found == pytest.approx(pieces) and pieces["truth_shrinkage"] == pytest.approx(0.99, abs=3e-3)
    broken = params | {"encoder_bias": jnp.full(12, jnp.nan)}
    assert all(np.isnan(one) for one in measures.lane_against_truth(broken, data.heldout, settings, truth).values())

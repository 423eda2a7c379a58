"""Samples of known features: what the settings say of them holds of the samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, kstest, multivariate_normal, norm

import sae_jax
from sae_jax import DataConfig, UserError, load
from sae_jax.data import draws, features
from sae_jax.data.sampling import Tree
from sae_jax.data.superposition import drawn, settings_from, world_of

NUMBER = 40_000
SMALL = "features=12,inputs=6,apart_steps=20"


def made(argument, seed=0, number=NUMBER):
    """Settings, the world that they make, and samples with their magnitudes."""
    settings = settings_from(argument)
    world = world_of(settings, seed)
    return settings, world, *drawn(settings, world, jax.random.key(5), number, with_magnitudes=True)


def standard_errors(found, expected, number=NUMBER):
    """How many standard errors shares of samples are away from probabilities."""
    return np.max(np.abs(found - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-9) / number))


def test_draws_are_uniform_normal_and_independent_of_each_other():
    streams = draws.words(jax.random.key(3), 2)
    numbers = np.asarray(jax.vmap(lambda one: draws.uniforms(one, 400, 300))(streams))
    assert numbers.min() > 0 and numbers.max() < 1
    for stream in numbers:
        assert kstest(stream.ravel(), "uniform").pvalue > 1e-3
        # Pairs at every small distance, along rows, columns and both, fill the square evenly.
        for down, right in itertools.product((0, 1, 2), (0, 1, 7)):
            if down or right:
                pair = stream[down:, right:], stream[: 400 - down, : 300 - right]
                counts = np.histogram2d(*(one.ravel() for one in pair), bins=16, range=[[0, 1]] * 2)[0]
                expected = counts.sum() / 256
                assert chi2.sf(np.sum((counts - expected) ** 2) / expected, 255) > 1e-4, (down, right)
    counts = np.histogram2d(*(one.ravel() for one in numbers), bins=16, range=[[0, 1]] * 2)[0]
    assert chi2.sf(np.sum((counts - counts.mean()) ** 2) / counts.mean(), 255) > 1e-4
    assert kstest(np.asarray(draws.normals(streams[0], 400, 300)).ravel(), norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_the_extreme_hashes_give_finite_numbers(bits, monkeypatch):
    monkeypatch.setattr(draws, "_mixed", lambda value: jnp.full_like(value, bits))
    stream = draws.words(jax.random.key(0), 1)[0]
    assert 0 < float(draws.uniforms(stream, 1, 1)[0, 0]) < 1
    assert 5 < abs(float(draws.normals(stream, 1, 1)[0, 0])) < 6


def test_the_default_is_sixty_four_features_of_which_three_fire():
    data = load(DataConfig(dataset="superposition"))
    truth = data.truth
    assert truth.directions.shape == (64, 32) and data.train.shape == (36_000, 32) and data.heldout.shape == (4000, 32)
    np.testing.assert_allclose(np.linalg.norm(truth.directions, axis=1), 1, rtol=1e-5)
    assert standard_errors(truth.firing.mean(axis=0), np.full(64, 0.05), 4000) < 4.5
    assert truth.firing.sum(axis=1).mean() == pytest.approx(3.2, abs=0.12)
    sizes = truth.magnitudes[truth.firing]
    assert sizes.mean() == pytest.approx(1, abs=0.02) and sizes.std() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(truth.firing, truth.magnitudes > 0)
    np.testing.assert_allclose(data.heldout, truth.magnitudes @ truth.directions, atol=1e-5)
    assert truth.parents is None and data.stream is not None and data.normalisation.is_identity
    assert (
        "64 features in superposition, 3.21 of which fire on a sample: 36000 samples of 32 inputs" in data.description
    )
    assert "as an excerpt of a stream, 4000 held out; as they are" in data.description
    again, other = (load(DataConfig(dataset="superposition", data_seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(again.heldout, data.heldout)
    assert np.any(other.heldout != data.heldout) and np.any(other.truth.directions != truth.directions)
    assert again.summary == data.summary and not np.array_equal(data.train[:4000], data.heldout)


def test_directions_are_less_alike_after_adam_than_before():
    start = np.random.default_rng(0).normal(size=(40, 10))

    def likeness(rows):
        return np.sum((rows @ rows.T - np.eye(len(rows))) ** 2)

    plain, apart = features.directions(start, 0, 0.01), features.directions(start, 200, 0.01)
    np.testing.assert_allclose(plain, start / np.linalg.norm(start, axis=1, keepdims=True), rtol=1e-5)
    # 40 unit rows in 10 dimensions cannot be less alike than a tight frame.
    assert 40**2 / 10 - 40 - 1e-3 < likeness(apart) < 1.01 * (40**2 / 10 - 40) < likeness(plain)


def test_one_step_of_adam_follows_the_gradient_over_all_pairs():
    rows = np.random.default_rng(1).normal(size=(9, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def pairs(flat):
        dots = flat.reshape(9, 4) @ flat.reshape(9, 4).T
        return np.sum(dots**2) - np.sum(np.diag(dots) ** 2) + 9 * np.sum((np.diag(dots) - 1) ** 2)

    steps = 1e-6 * np.eye(36)
    slope = [(pairs(rows.ravel() + step) - pairs(rows.ravel() - step)) / 2e-6 for step in steps]
    # Adam's first step is the rate times the sign of the gradient.
    expected = rows - 1e-3 * np.sign(slope).reshape(9, 4)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(features.directions(rows, 1, 1e-3), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        ("firing=constant,p=.2", np.full(12, 0.2)),
        ("firing=linear,p_min=.1,p_max=.32", np.linspace(0.32, 0.1, 12)),
        (
            "firing=zipf,exponent=.5,p_min=.02,p_max=.4",
            [0.02 + 0.38 * (j**-0.5 - 12**-0.5) / (1 - 12**-0.5) for j in range(1, 13)],
        ),
        ("firing=random,p_min=.1,p_max=.3", None),
    ],
)
def test_features_fire_as_often_as_they_should(firing, expected):
    _, world, _, sizes = made(f"{SMALL},{firing}")
    if expected is None:
        assert np.all((world.probabilities > 0.1) & (world.probabilities < 0.3))
        assert np.ptp(world.probabilities) > 0.05
        expected = world.probabilities
    np.testing.assert_allclose(world.probabilities, expected, rtol=1e-5)
    rates = (sizes > 0).mean(axis=0)
    missed = norm.cdf(-1 / 0.3)  # Magnitudes that the relu makes 0.
    assert standard_errors(rates, np.asarray(expected) * (1 - missed)) < 4
    # Independent: of two features both fire as often as the product says.
    both = (sizes > 0).astype(float).T @ (sizes > 0) / NUMBER
    others = ~np.eye(12, dtype=bool)
    assert standard_errors(both[others], np.outer(expected, expected)[others]) < 4.5


def test_magnitudes_have_the_means_and_the_deviations_of_their_features():
    settings, world, _, sizes = made(f"{SMALL},p=.5,mean=5,mean_last=4,std=.5,std_spread=.5")
    np.testing.assert_allclose(world.means, np.linspace(5, 4, settings.features), rtol=1e-6)
    assert np.ptp(world.stds) > 0.3 and np.all(world.stds > 0)
    for feature in range(settings.features):
        some = sizes[:, feature][sizes[:, feature] > 0]
        assert some.mean() == pytest.approx(world.means[feature], abs=float(world.stds[feature]) / 20)
        assert some.std() == pytest.approx(world.stds[feature], rel=0.05)


def test_samples_are_sums_of_directions_and_a_bias():
    _, world, samples, sizes = made(f"{SMALL},bias=.5", number=100)
    assert np.linalg.norm(world.bias) == pytest.approx(0.5)
    np.testing.assert_allclose(samples, sizes @ world.directions + world.bias, atol=1e-5)


@pytest.mark.parametrize("correlation", ["correlation=low_rank,rank=3,scale=.5", "correlation=full,scale=.5"])
def test_a_copula_keeps_the_rates_and_makes_features_fire_together(correlation):
    _, world, _, sizes = made(f"{SMALL},p=.3,std=0,{correlation}")
    assert standard_errors((sizes > 0).mean(axis=0), np.full(12, 0.3)) < 4
    matrix = world.factor @ world.factor.T + (0 if world.rest is None else np.diag(world.rest**2))
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > 0 and np.abs(matrix - np.eye(12)).max() > 0.5
    both = (sizes > 0).astype(float).T @ (sizes > 0) / NUMBER
    for i, j in itertools.combinations(range(12), 2):
        r = matrix[i, j]
        expected = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf(norm.ppf([0.3, 0.3]))
        assert abs(both[i, j] - expected) < 4.5 * np.sqrt(expected / NUMBER), (i, j)


def test_correlated_firing_says_nothing_of_the_magnitudes():
    _, world, _, sizes = made(f"{SMALL},p=.5,correlation=low_rank,rank=1,scale=2")
    matrix = world.factor @ world.factor.T
    i, j = np.unravel_index(np.argmax(np.triu(matrix, 1)), matrix.shape)
    both = (sizes[:, i] > 0) & (sizes[:, j] > 0)
    assert matrix[i, j] > 0.9 and abs(np.corrcoef(sizes[both][:, [i, j]].T)[0, 1]) < 4 / np.sqrt(both.sum())


def test_the_numbers_of_a_hierarchy_go_level_by_level():
    tree = Tree(roots=2, branching=3, depth=2)
    assert [(level.start, level.stop) for level in tree.levels] == [(0, 2), (2, 8), (8, 26)] and tree.features == 26
    parents = tree.parents(28)
    assert parents[:8].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1] and parents[8:14].tolist() == [2, 2, 2, 3, 3, 3]
    assert parents[25] == 7 and parents[26:].tolist() == [-1, -1]


HIERARCHY = "features=16,inputs=8,roots=1,branching=2,depth=2,firing=linear,p_max=.6,p_min=.2,apart_steps=0"


@pytest.mark.parametrize("correlation", ["none", "low_rank"])
def test_a_child_fires_only_where_its_parent_does_and_exclusive_siblings_never_together(correlation):
    settings, _, _, sizes = made(f"{HIERARCHY},correlation={correlation}")
    fires, parents = sizes > 0, settings.tree.parents(16)
    for child in np.flatnonzero(parents >= 0):
        assert fires[:, child].any() and not np.any(fires[:, child] & ~fires[:, parents[child]])
    for parent in range(3):
        family = fires[:, parents == parent]
        assert family.shape[1] == 2 and family.sum(axis=1).max() == 1
    loose = made(f"{HIERARCHY},exclusive=False")[3] > 0
    assert np.any(loose[:, 1] & loose[:, 2]) and not np.any(loose[:, 1] & ~loose[:, 0])


def test_the_rates_of_a_hierarchy_are_those_of_its_rules():
    text = HIERARCHY + ",std=0"
    p = np.linspace(0.6, 0.2, 16)
    parents = Tree(1, 2, 2).parents(16)

    def rates(argument):
        return (made(argument)[3] > 0).mean(axis=0)

    # Without rules that hinder more than the parent, compensation is exact.
    assert standard_errors(rates(f"{text},exclusive=False"), p) < 4.5
    plain = p.copy()
    for child in np.flatnonzero(parents >= 0):
        plain[child] *= plain[parents[child]]
    assert standard_errors(rates(f"{text},exclusive=False,compensated=False"), plain) < 4.5
    # One of two: q_1 (1 - q_2 / 2) of the parent's samples.
    for compensated in (False, True):
        q = p.copy()
        for child in np.flatnonzero(parents >= 0) if compensated else ():
            parent, [sibling] = p[parents[child]], [s for s in np.flatnonzero(parents == parents[child]) if s != child]
            q[child] = min(1, p[child] / parent * (1 + p[sibling] / parent))
        expected = q.copy()
        for child in np.flatnonzero(parents >= 0):
            [sibling] = [s for s in np.flatnonzero(parents == parents[child]) if s != child]
            expected[child] = expected[parents[child]] * q[child] * (1 - q[sibling] / 2)
        assert standard_errors(rates(f"{text},compensated={compensated}"), expected) < 4.5, compensated


def test_children_are_scaled_by_their_parents():
    text = HIERARCHY + ",mean=2,std=.5"
    settings, _, _, sizes = made(text)
    parents = settings.tree.parents(16)
    for child in (1, 3):
        fires = sizes[:, child] > 0
        scale = sizes[fires, parents[child]] / 2
        # The magnitude over the parent's is N(2, .5^2), whatever the parent's is.
        own = sizes[fires, child] / scale
        assert own.mean() == pytest.approx(2, abs=0.03) and own.std() == pytest.approx(0.5, abs=0.03)
        assert abs(np.corrcoef(own, scale)[0, 1]) < 4.5 / np.sqrt(fires.sum())
    plain = made(f"{text},scaled=False")[3]
    fires = plain[:, 1] > 0
    assert abs(np.corrcoef(plain[fires, 1], plain[fires, 0])[0, 1]) < 4.5 / np.sqrt(fires.sum())


@pytest.mark.parametrize("argument", [SMALL, f"{HIERARCHY},correlation=low_rank"])
def test_a_batch_is_a_function_of_the_seed_and_the_step_however_it_is_drawn(argument):
    feed = load(DataConfig(dataset=f"superposition:{argument}", samples=20)).feed
    block = feed.block(0, 24, 1)

    def batch(seed, step, axis_name=None):
        return feed.draw(block, jax.random.key(seed), step, 24, axis_name)

    one = jax.jit(batch, static_argnums=(0, 2))
    np.testing.assert_array_equal(one(0, 3), one(0, 3))
    for other in (one(0, 4), one(1, 3)):
        same = np.all(np.asarray(other) == np.asarray(one(0, 3)), axis=1)
        assert not np.any(same & np.any(other != 0, axis=1))
    # Over lanes at once, and split over devices.
    lanes = jax.jit(jax.vmap(lambda seed: feed.draw(block, jax.random.key(seed), 3, 24, None)))(jnp.arange(3))
    for seed in range(3):
        np.testing.assert_allclose(lanes[seed], one(seed, 3), rtol=1e-5, atol=1e-6)
    shares = jax.jit(jax.vmap(lambda _: batch(0, 3, "batch"), axis_name="batch", axis_size=2))(jnp.arange(2))
    np.testing.assert_allclose(shares.reshape(24, -1), one(0, 3), rtol=1e-5, atol=1e-6)


def test_other_worlds_of_the_same_shapes_share_their_program():
    first, second = (load(DataConfig(dataset=f"superposition:{SMALL},p={p}", samples=20)) for p in (0.1, 0.2))
    assert first.feed.draw is second.feed.draw
    assert np.any(first.feed.block(0, 8, 1)[0].probabilities != second.feed.block(0, 8, 1)[0].probabilities)
    tree = load(DataConfig(dataset=f"superposition:{HIERARCHY}", samples=20))
    assert tree.feed.draw is not first.feed.draw


def test_lanes_equal_those_trained_alone_and_take_no_sample_twice():
    data = DataConfig(dataset=f"superposition:{SMALL}", samples=50)
    short = {"d_hidden": 5, "batch_size": 16, "steps": 30}
    every = sae_jax.sweep(data, "relu", l1=[0.1, 0.2], seeds=2, **short)
    for l1, seed in itertools.product((0.1, 0.2), (0, 1)):
        alone = sae_jax.sweep(data, "relu", l1=l1, seeds=[seed], **short)
        for name in ("loss", "decoder_weight", "eval_l0"):
            lane = every[name].sel(l1=l1, seed=seed)
            np.testing.assert_allclose(lane, alone[name].sel(seed=seed), rtol=2e-4, atol=1e-5, err_msg=name)
    feed = load(data).feed
    block, key = feed.block(0, 16, 50), jax.random.key(0)
    rows = np.concatenate(jax.lax.map(lambda step: feed.draw(block, key, step, 16, None), jnp.arange(50)))
    rows = rows[np.any(rows != 0, axis=1)]
    assert len(np.unique(rows, axis=0)) == len(rows) > 300


def test_a_truth_of_other_samples_is_refused():
    data = load(DataConfig(dataset=f"superposition:{SMALL}", samples=50))
    wrong = data.truth._replace(firing=data.truth.firing[:, :-1])
    with pytest.raises(UserError, match=r"firing of the truth must have shape \[6, 12\].*got \[6, 11\]"):
        sae_jax.Data(data.train, data.heldout, data.config, "", truth=wrong)
    assert sae_jax.Data(data.train, data.heldout, data.config, "", truth=sae_jax.Truth(*data.truth)).truth is not None


def test_the_worlds_samples_do_not_depend_on_the_precision_of_the_process():
    config = DataConfig(dataset=f"superposition:{SMALL}", samples=50)
    single = load(config)
    with jax.enable_x64(True):
        double = load(config)
    np.testing.assert_array_equal(single.heldout, double.heldout)

"""Normalisation: by hand, undone, and by the training rows alone."""

import numpy as np
import pytest

from sae_jax import DataConfig, UserError, as_data, load
from sae_jax.data.normalise import fit
from sae_jax.storage import arrays

RNG = np.random.default_rng(0)


def fitted(train, rule, subtract_sample_mean=False):
    return fit(train, np.ones(len(train), bool), rule, subtract_sample_mean)


@pytest.mark.parametrize("subtract_sample_mean", [True, False])
def test_ufldl_by_hand(subtract_sample_mean):
    train, heldout = RNG.normal(2, 3, size=(200, 7)), RNG.normal(2, 3, size=(50, 7))
    normalisation = fitted(train, "ufldl", subtract_sample_mean)
    shift = (lambda x: x - x.mean(axis=1)[:, None]) if subtract_sample_mean else (lambda x: x - train.mean())
    limit = 3 * np.std(shift(train))
    for given in (train, heldout):
        expected = (np.maximum(np.minimum(shift(given), limit), -limit) / limit + 1) * 0.4 + 0.1
        np.testing.assert_allclose(normalisation.apply(given), expected, rtol=1e-6)


def test_unit_has_variance_one_over_all_numbers():
    rows = fitted(RNG.normal(2, 3, size=(200, 7)), "unit").apply(RNG.normal(2, 3, size=(20_000, 7)))
    assert rows.mean() == pytest.approx(0, abs=0.1) and rows.std() == pytest.approx(1, abs=0.05)


def test_standardize_and_centre_are_by_feature():
    train = RNG.normal([1e6, -2, 5], [0.5, 3, 0], size=(400, 3))
    rows = fitted(train, "standardize").apply(train)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(fitted(train, "centre").apply(train), train - train.mean(axis=0), rtol=1e-6, atol=1e-6)


def test_length_scales_all_samples_alike():
    train = RNG.normal([3, -2, 5], [0.5, 3, 0], size=(400, 3))
    rows = fitted(train, "length", True).apply(train)
    assert np.linalg.norm(rows, axis=1).mean() == pytest.approx(np.sqrt(3))
    np.testing.assert_allclose(rows / rows[0, 0], train / train[0, 0], rtol=1e-5)
    with pytest.raises(
        UserError, match="samples must differ from 0 to be normalised by length: got a mean length of 0"
    ):
        fitted(np.zeros((10, 3)), "length")


@pytest.mark.parametrize("rule", ["unit", "standardize", "centre", "length", "none"])
@pytest.mark.parametrize("subtract_sample_mean", [True, False])
def test_what_is_not_clipped_is_undone(rule, subtract_sample_mean):
    x = RNG.normal(RNG.normal(size=9) * 4, 2, size=(100, 9))
    normalisation = fitted(x, rule, subtract_sample_mean)
    np.testing.assert_allclose(normalisation.undo(normalisation.apply(x), normalisation.means(x)), x, atol=2e-5)


def test_undoing_ufldl_leaves_what_lies_within_three_standard_deviations():
    x = RNG.normal(3, 2, size=(1000, 4))
    normalisation = fitted(x, "ufldl")
    inside = np.abs(x - x.mean()) < 3 * x.std()
    back = normalisation.undo(normalisation.apply(x))
    assert 0 < np.sum(~inside) < 50
    np.testing.assert_allclose(back[inside], x[inside], atol=1e-5)
    assert np.all(np.abs(back[~inside] - x[~inside]) > 1e-4)


def test_only_training_rows_count():
    x = np.concatenate([RNG.normal(size=(50, 3)), np.full((5, 3), 1e4)])
    chosen = np.arange(len(x)) < 50
    np.testing.assert_array_equal(fit(x, chosen, "standardize", False).centre, fitted(x[:50], "standardize").centre)


def test_the_size_of_the_pieces_does_not_matter(monkeypatch):
    x = RNG.normal(2, 3, size=(301, 7)).astype(np.float32)
    whole = {rule: as_data(x, DataConfig(normalize=rule)) for rule in ("none", "unit", "standardize")}
    monkeypatch.setattr(arrays, "PIECE_BYTES", 1000)
    for rule, data in whole.items():
        again = as_data(x, DataConfig(normalize=rule))
        np.testing.assert_allclose(again.train, data.train, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(again.heldout, data.heldout, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(again.summary, data.summary, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f8", "u1", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_are_mapped_and_say_what_they_hold(tmp_path, dtype, order):
    x = np.asarray(RNG.integers(0, 200, size=(60, 5)), dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    from_file = load(DataConfig(dataset=f"array:{tmp_path / 'x.npy'}"))
    np.testing.assert_array_equal(from_file.train, as_data(x).train)
    assert np.sort(np.concatenate([from_file.train, from_file.heldout])[:, 0]).tolist() == np.sort(x[:, 0]).tolist()


def test_the_means_of_samples_that_are_no_images_stay():
    x = RNG.uniform(size=(100, 5)) + np.arange(100)[:, None]
    assert np.ptp(as_data(x, DataConfig(normalize="unit")).train.mean(axis=1)) > 1
    digits = load(DataConfig(dataset="digits", normalize="unit"))
    assert np.abs(digits.train.mean(axis=1)).max() < 1e-6


def test_what_does_not_vary_is_refused():
    with pytest.raises(UserError, match="must differ from their mean to be normalised: got standard deviation 0"):
        fitted(np.ones((10, 3)), "standardize")

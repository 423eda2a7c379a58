"""Labels beside samples, and training on some classes only."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sae_jax.data import load, tfds_images
from sae_jax.data.config import DataConfig
from sae_jax.data.samples import array_rows, as_data, prepare
from sae_jax.settings import UserError
from tests.tfds_files import write_digits_as_mnist

RNG = np.random.default_rng(0)


def test_tfds_labels_go_with_their_images(tmp_path):
    write_digits_as_mnist(tmp_path)
    data = load(DataConfig(dataset="tfds:mnist", data_dir=str(tmp_path), classes="0-4", samples=300))
    whole = load_digits()
    assert data.train.shape == (300, 784) and data.image_shape == (28, 28)
    np.testing.assert_array_equal(data.train_labels, whole.target[:1500][whole.target[:1500] < 5][:300])
    np.testing.assert_array_equal(data.heldout_labels, whole.target[1500:][whole.target[1500:] < 5])
    np.testing.assert_array_equal(data.left_out_labels, whole.target[1500:][whole.target[1500:] >= 5])


def test_digits_carry_their_labels_and_classes_are_kept_or_left_out():
    whole, some = load(DataConfig(dataset="digits")), load(DataConfig(dataset="digits", classes="0-2,7"))
    kept = np.isin(whole.heldout_labels, [0, 1, 2, 7])
    np.testing.assert_array_equal(some.heldout, whole.heldout[kept])
    np.testing.assert_array_equal(some.left_out, whole.heldout[~kept])
    np.testing.assert_array_equal(some.left_out_labels, whole.heldout_labels[~kept])
    np.testing.assert_array_equal(some.train, whole.train[np.isin(whole.train_labels, [0, 1, 2, 7])])
    assert set(some.train_labels) == set(some.heldout_labels) == {0, 1, 2, 7} and whole.left_out is None
    # A zero has a dark middle and a one a bright one, which tells that labels go with their images.
    middle = whole.train[:, 27:29].mean(axis=1)
    assert middle[whole.train_labels == 0].mean() < 0.1 < 0.7 < middle[whole.train_labels == 1].mean()


def test_classes_that_are_left_out_do_not_touch_the_normalisation():
    samples = np.concatenate([RNG.normal(0, 1, (500, 4)), RNG.normal(0, 100, (500, 4))])
    labels = np.repeat([0, 1], 500)
    data = as_data(samples, DataConfig(dataset="array", classes="0", normalize="unit"), "mixed", labels)
    assert data.train.std() == pytest.approx(1, abs=1e-5) and data.left_out.std() > 50


@pytest.mark.parametrize(
    ("dataset", "classes", "message"),
    [
        ("patches", "3", "classes needs labelled samples: got '3', and patches of 6 photographs"),
        ("digits", "3-", "classes must be whole numbers and ranges of them, such as 0-4,7: got '3-'"),
        ("digits", "3,x", "classes must be whole numbers"),
        ("digits", "5-3", "in rising order: got '5-3'"),
        ("digits", "0-10", "classes must be among those of scikit-learn's handwritten digits, 0 to 9"),
    ],
)
def test_classes_that_are_not_there_are_refused(dataset, classes, message):
    with pytest.raises(UserError, match=message):
        load(DataConfig(dataset=dataset, classes=classes))


def test_a_file_may_hold_samples_with_labels(tmp_path):
    samples, labels = RNG.normal(size=(50, 3)), np.arange(50) % 4
    np.savez(tmp_path / "both.npz", samples=samples, labels=labels)
    data = load(DataConfig(dataset=f"array:{tmp_path / 'both.npz'}"))
    assert data.train_labels.shape == (45,) and data.heldout_labels.shape == (5,)
    where = [int(np.argmin(np.abs(samples - row).sum(axis=1))) for row in data.heldout]
    np.testing.assert_array_equal(data.heldout_labels, labels[where])
    np.savez(tmp_path / "bad.npz", samples=samples, labels=labels - 1)
    with pytest.raises(
        UserError, match=r"must be whole numbers in .0, 1000000., one for each of 50 samples: got 50 from -1 to 2"
    ):
        load(DataConfig(dataset=f"array:{tmp_path / 'bad.npz'}"))


def test_a_default_folder_of_a_user_whom_nobody_knows_is_one_that_holds_nothing(monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~nobody_knows/x")
    tfds_images._read.cache_clear()  # Another test may have read the set from the default folder.
    with pytest.raises(UserError, match="tfds:mnist must be prepared: it is not in"):
        load(DataConfig(dataset="tfds:mnist"))


def test_names_go_with_their_samples():
    samples = RNG.normal(size=(50, 3))
    names = [f"{row[0]:.9f}" for row in samples]
    data = prepare(array_rows(samples, "tokens")._replace(names=names), DataConfig(dataset="array", heldout=0.2))
    assert data.heldout_names is not None and len(data.heldout_names) == len(data.heldout) == 10
    np.testing.assert_allclose(np.array(data.heldout_names, float), data.heldout[:, 0], atol=1e-7)
    apart = array_rows(samples[:40], "tokens")._replace(heldout=samples[40:], heldout_names=names[40:])
    assert prepare(apart, DataConfig(dataset="array")).heldout_names == tuple(names[40:])
    assert prepare(array_rows(samples, "tokens"), DataConfig(dataset="array")).heldout_names is None

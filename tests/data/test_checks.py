"""What becomes samples is what it seems to be: nothing masked, nothing that is no number, nothing that does not fit."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.data import Data, DataConfig, Rows, as_data, as_stream, load
from sae_jax.data import samples as of_samples
from sae_jax.data.checks import as_array, check_key, check_step, trainable
from sae_jax.data.samples import array_rows, prepare
from sae_jax.settings import UserError
from sae_jax.training.config import lane_settings
from sae_jax.training.lane import fit

RNG = np.random.default_rng(0)
TABLE = RNG.uniform(size=(20, 6))
MASKED = np.ma.array(TABLE, mask=TABLE > 0.9)
NUMBER = int(MASKED.mask.sum())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: as_data(MASKED), "samples"),
        (lambda: array_rows(list(MASKED), "samples"), "samples"),
        (lambda: as_data(TABLE, labels=np.ma.array(np.arange(20), mask=np.arange(20) < NUMBER)), "labels of samples"),
        (lambda: prepare(Rows(MASKED, "mine"), DataConfig()), "samples of mine"),
        (lambda: prepare(Rows(TABLE, "mine", heldout=MASKED), DataConfig()), "held-out samples of mine"),
        (lambda: Data(MASKED, TABLE, DataConfig(), "mine"), "train"),
    ],
    ids=["array", "rows", "labels", "a source", "a source's held-out part", "Data"],
)
def test_masked_values_are_refused_and_counted(call, name):
    with pytest.raises(UserError, match=f"^{name} must have no masked values: got {NUMBER} masked of .*filled"):
        call()


def test_a_masked_array_without_a_masked_value_is_an_array():
    np.testing.assert_array_equal(as_data(np.ma.array(TABLE)).train, as_data(TABLE).train)


class Lends:
    """An array of another library, which lends it in one of two ways."""

    def __init__(self, way):
        self.way = way

    def __getattr__(self, name):
        if name in ("__array__", "__dlpack__") and name != self.way:
            raise AttributeError(name)
        return getattr(TABLE, name)


class Refuses:
    """A tensor that is differentiated through."""

    def __array__(self, *_, **__):
        raise RuntimeError("use detach() first")


def test_arrays_of_other_libraries_are_taken_and_what_holds_none_is_refused():
    for values in (Lends("__array__"), Lends("__dlpack__"), TABLE.tolist()):
        np.testing.assert_array_equal(as_array(values, "samples"), TABLE)
    np.testing.assert_array_equal(as_array(jnp.asarray(TABLE), "samples"), np.float32(TABLE))
    for values, says in (
        (Refuses(), "a Refuses: use detach() first"),
        ([[1, 2], [3]], "[[1, 2], [3]]: setting an array element with a sequence"),
        ({"a": 1}, "{'a': 1}"),
        (np.ndarray, "the class ndarray"),
        ("samples.npy", "'samples.npy'"),
    ):
        with pytest.raises(UserError, match=rf"^samples must be an array \[n, d\]: got {re.escape(says)}.*; pass"):
            as_array(values, "samples", "[n, d]")


@pytest.mark.parametrize("split", ["train", "heldout", "left_out"])
@pytest.mark.parametrize(
    ("value", "says"),
    [(np.nan, "got 1 NaN"), (-np.inf, "got 1 NaN"), (1e39, "got 1 NaN"), (-1e20, "got a value of size 1e\\+20")],
)
def test_data_made_by_hand_are_checked_as_arrays_are(split, value, says):
    bad = TABLE.copy()
    bad[3, 2] = value
    good = Data(TABLE, TABLE, DataConfig(), "mine")
    with pytest.raises(UserError, match=says):
        dataclasses.replace(good, **{split: bad})
    assert good.train.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heldout": TABLE[:, :5]}, "heldout must have as many features as train, 6: got 5"),
        ({"train": TABLE[0]}, r"train must be an array \[samples, features\]: got shape \[6\]"),
        ({"train": TABLE[:0]}, "train must not be empty"),
        ({"train_labels": np.arange(19)}, "train_labels must be whole numbers .* one for each of 20 samples: got 19"),
        ({"heldout_labels": np.full(20, 0.5)}, "heldout_labels must be whole numbers"),
        ({"config": {"dataset": "array"}}, "config must be a DataConfig: got {'dataset': 'array'}"),
        *(
            ({"image_shape": shape}, r"image_shape must be \(height, width\) of a sample's 6 features: got .*leave it")
            for shape in ((2, 2), (-2, -3), (0, 6), (6,), (1, 2, 3), (1.5, 4), 6, "2x3")
        ),
    ],
)
def test_parts_of_data_made_by_hand_fit_together(change, says):
    good = {"train": TABLE, "heldout": TABLE, "config": DataConfig(), "description": "mine"}
    assert Data(**good, image_shape=(2, 3)).image_shape == (2, 3)
    data = Data(**good)
    vars(data).update(change)
    with pytest.raises(UserError, match=says):
        data.__post_init__()  # What would come first here are the checks of annotations, which users do not have.


def test_sources_of_ones_own_state_the_shape_of_their_images():
    with pytest.raises(UserError, match="image_shape must be"):
        prepare(Rows(TABLE, "mine", image_shape=(2, 2)), DataConfig())


@pytest.mark.parametrize("classes", ["", "0-1"])
def test_data_may_leave_no_class_out(classes):
    data = as_data(TABLE, DataConfig(dataset="array", classes=classes), labels=np.arange(20) % 2)
    assert data.left_out is None or data.left_out.shape == (0, 6)


def asked(monkeypatch, config):
    """The most bytes that memory was asked for while a source was loaded."""
    needed = []
    for owner in ("files", "patches", "samples"):
        monkeypatch.setattr(f"sae_jax.data.{owner}.check_fits", lambda number, size: needed.append(size))
    load(config)
    return max(needed)


def test_memory_is_asked_for_all_that_loading_takes(tmp_path, monkeypatch):
    few, half = (DataConfig(samples=900, patch_size=4, heldout=share) for share in (0.1, 0.5))
    assert asked(monkeypatch, few) == of_samples.SINGLE_BYTES * 6 * 1000 * 16
    assert asked(monkeypatch, half) == of_samples.SINGLE_BYTES * 6 * 1800 * 16
    np.savez(tmp_path / "a.npz", np.zeros((30, 4)) + np.arange(30)[:, None])
    np.save(tmp_path / "a.npy", np.zeros((30, 4)) + np.arange(30)[:, None])
    assert asked(monkeypatch, DataConfig(dataset=f"array:{tmp_path / 'a.npz'}")) == (8 + 4) * 120
    assert asked(monkeypatch, DataConfig(dataset=f"array:{tmp_path / 'a.npy'}")) == 4 * 120


VIEW = np.broadcast_to(TABLE[0], (10**12, 6))


@pytest.mark.parametrize(
    "call",
    [
        lambda path: as_data(VIEW),
        lambda path: as_data(VIEW, DataConfig(dataset="array", samples=10)),
        lambda path: as_stream(lambda step: TABLE, heldout=VIEW),
        lambda path: fit(lane_settings(steps=1), VIEW, TABLE, jax.random.key(0)),
        lambda path: load(DataConfig(dataset=f"array:{path}")),
    ],
    ids=["array", "its held-out part", "held-out samples", "fit", "file"],
)
def test_what_does_not_fit_is_refused_before_it_is_looked_through(call, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", TABLE)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10))
    monkeypatch.setattr("sae_jax.data.checks.pieces", lambda values: pytest.fail("looked through"))
    monkeypatch.setattr("sae_jax.data.batch_sources._reader", lambda *_: lambda first: iter([TABLE] * 1000))
    with pytest.raises(UserError, match=r"^samples must fit in memory: got \d+, which take .* MiB; use fewer$"):
        call(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"targets": VIEW}, "^targets must have a row for each of the 20 samples"),
        (
            {"labels": VIEW[:, 0]},
            "^labels of samples must be whole numbers .* for each of 20 samples: got 1000000000000;",
        ),
    ],
    ids=["targets", "labels"],
)
def test_what_is_of_another_number_of_rows_is_refused_before_it_is_looked_through(given, words, monkeypatch):
    monkeypatch.setattr("sae_jax.data.checks.pieces", lambda values: iter([(..., values)] if len(values) == 20 else 1))
    with pytest.raises(UserError, match=words):
        as_data(TABLE, **given)


def test_samples_to_train_on_may_be_nested_lists():
    nested = TABLE.tolist()
    np.testing.assert_array_equal(trainable(nested, "train", nested), TABLE.astype(np.float32))


def test_an_old_key_must_be_of_the_kind_that_is_drawn_with():
    check_key(np.zeros(2, np.uint32))
    for shape in [(), (4,), (3, 2)]:
        with pytest.raises(UserError, match=r"^key must be a key"):
            check_key(np.zeros(shape, np.uint32))
    with jax.default_prng_impl("rbg"):
        check_key(np.zeros(4, np.uint32))


@pytest.mark.parametrize("step", [-1, 2.5, 2**31, 10**20, True, "1", None, [1], np.arange(3), np.float32(1)])
def test_a_step_is_one_whole_number(step):
    with pytest.raises(UserError, match=r"^step must be a whole number in \[0, 2147483647\]: got "):
        check_step(step)


def test_of_a_traced_step_its_kind_is_looked_at():
    jax.make_jaxpr(check_step)(jnp.int32(3))
    for step in (jnp.float32(1), jnp.arange(3)):
        with pytest.raises(UserError, match=r"^step must be one whole number"):
            jax.make_jaxpr(check_step)(step)


def test_images_of_a_file_are_read_one_at_a_time(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", RNG.integers(0, 256, size=(5, 20, 20), dtype=np.uint8))
    seen = []
    monkeypatch.setattr("sae_jax.data.patches.whiten", lambda image: seen.append(image) or image)
    load(DataConfig(dataset=f"images:{tmp_path / 'images.npy'}", samples=50, patch_size=3))
    assert len(seen) == 5 and all(image.dtype == float and image.base is None for image in seen)

"""Data sources: what they promise, and what they refuse."""

import json
import os

import numpy as np
import pytest

from sae_jax import sweep
from sae_jax.data import large_file, load
from sae_jax.data.config import DataConfig
from sae_jax.data.samples import as_data
from sae_jax.settings import UserError
from tests.tfds_files import write_image_set
from tests.watching import Watcher

RNG = np.random.default_rng(0)


def test_digits_are_split_once_and_for_all():
    data = load(DataConfig(dataset="digits"))
    assert data.train.shape == (1617, 64) and data.heldout.shape == (180, 64)
    assert data.train.min() == 0 and data.train.max() == 1 and data.image_shape == (8, 8)
    np.testing.assert_array_equal(data.heldout, load(DataConfig(dataset="digits")).heldout)
    assert len(load(DataConfig(dataset="digits", samples=100)).train) == 100


@pytest.mark.parametrize("channels", [1, 3])
def test_tfds_images_come_back_as_grey_rows(tmp_path, channels):
    images = RNG.integers(0, 256, size=(30, 5, 4, channels), dtype=np.uint8)
    write_image_set(tmp_path, "tiny_set", {"train": images[:20], "test": images[20:]})
    data = load(DataConfig(dataset="tfds:tiny_set", data_dir=str(tmp_path)))
    expected = images.mean(axis=-1).reshape(30, 20) / 255
    np.testing.assert_allclose(data.train, expected[:20], atol=1e-6)
    np.testing.assert_allclose(data.heldout, expected[20:], atol=1e-6)
    assert data.image_shape == (5, 4) and "tensorflow-datasets tiny_set: 20 samples of 5x4 pixels" in data.description


def test_a_tfds_set_without_a_test_split_holds_out_its_last_part(tmp_path):
    images = RNG.integers(0, 256, size=(30, 5, 4, 1), dtype=np.uint8)
    write_image_set(tmp_path, "one_split", {"train": images})
    data = load(DataConfig(dataset="tfds:one_split", data_dir=str(tmp_path), heldout=0.2))
    np.testing.assert_allclose(data.heldout, images[24:].reshape(6, 20) / 255, atol=1e-6)
    assert len(data.train) == 24


def test_tfds_images_of_several_sizes_are_refused(tmp_path):
    images = [RNG.integers(0, 256, size=(side, 4, 1), dtype=np.uint8) for side in (5, 6)]
    write_image_set(tmp_path, "ragged", {"train": images}, shape=(-1, -1, 1))
    with pytest.raises(UserError, match="must hold images of one size"):
        load(DataConfig(dataset="tfds:ragged", data_dir=str(tmp_path)))


def test_a_tfds_set_that_is_cut_short_or_of_another_format_names_the_command_too(tmp_path):
    images = RNG.integers(0, 256, size=(30, 5, 4, 1), dtype=np.uint8)
    for name in ("cut", "gone", "other"):
        write_image_set(tmp_path, name, {"train": images})
    file = tmp_path / "cut" / "1.0.0" / "cut-train.array_record-00000-of-00001"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "gone" / "1.0.0" / "gone-train.array_record-00000-of-00001").unlink()
    info = tmp_path / "other" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for name in ("cut", "gone", "other"):
        with pytest.raises(UserError, match=rf"tfds:{name} must be readable as array_record .*download_and_prepare"):
            load(DataConfig(dataset=f"tfds:{name}", data_dir=str(tmp_path)))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_no_colour_of_a_tfds_image(tmp_path, channels):
    images = RNG.integers(0, 256, size=(12, 5, 4, channels), dtype=np.uint8)
    images[..., -1] = 255
    write_image_set(tmp_path, "opaque", {"train": images, "test": images})
    data = load(DataConfig(dataset="tfds:opaque", data_dir=str(tmp_path)))
    np.testing.assert_allclose(data.train, images[..., :-1].mean(axis=-1).reshape(12, 20) / 255, atol=1e-6)
    images[7, 2, :3, -1] = 254
    write_image_set(tmp_path, "clear", {"train": images})
    with pytest.raises(UserError, match="tfds:clear must hold opaque images: got 3 transparent pixels in one; put"):
        load(DataConfig(dataset="tfds:clear", data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("lengths", "files", "says"),
    [
        (["10"], ["00000-of-00001", "00001-of-00002"], "2 files of its train split where dataset_info.json names 1"),
        (
            ["5"],
            ["00000-of-00001"],
            r"10 images in few-train.array_record-00000-of-00001 where dataset_info.json names 5",
        ),
        (["12", "8"], ["00000-of-00002", "00001-of-00002"], "10 images in few-train.*0-of-00002 where .* names 12"),
        (["10", "10"], ["00000-of-00001"], "1 files of its train split where dataset_info.json names 2"),
        (["30"], ["00000-of-00001"], "10 images in .* names 30"),
    ],
)
def test_a_tfds_set_whose_files_are_not_those_of_its_metadata_is_refused(tmp_path, lengths, files, says):
    images = RNG.integers(0, 256, size=(10, 5, 4, 1), dtype=np.uint8)
    write_image_set(tmp_path, "few", {"train": images, "test": images})
    folder = tmp_path / "few" / "1.0.0"
    written = folder / "few-train.array_record-00000-of-00001"
    content = written.read_bytes()
    written.unlink()
    for name in files:
        (folder / f"few-train.array_record-{name}").write_bytes(content)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = lengths
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=rf"tfds:few must be readable as array_record files in .*: got .*{says}"):
        load(DataConfig(dataset="tfds:few", data_dir=str(tmp_path)))


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_pipe_among_the_files_of_a_tfds_set_is_not_waited_for(name, tmp_path):
    write_image_set(tmp_path, "piped", {"train": RNG.integers(0, 256, size=(4, 5, 4, 1), dtype=np.uint8)})
    (tmp_path / "piped" / "1.0.0" / name).unlink()
    os.mkfifo(tmp_path / "piped" / "1.0.0" / name)
    with pytest.raises(UserError, match=r"tfds:piped must be readable .*: got it is no regular file"):
        load(DataConfig(dataset="tfds:piped", data_dir=str(tmp_path)))


def test_one_tfds_image_cannot_be_split(tmp_path):
    write_image_set(tmp_path, "single", {"train": RNG.integers(0, 256, size=(1, 5, 4, 1), dtype=np.uint8)})
    with pytest.raises(UserError, match="must hold at least 2 images"):
        load(DataConfig(dataset="tfds:single", data_dir=str(tmp_path)))


def test_more_patches_than_fit_in_memory_are_refused():
    with pytest.raises(UserError, match="samples must fit in memory: got 2000000000"):
        load(DataConfig(samples=2 * 10**9))


def test_the_smallest_heldout_part_is_one_sample():
    assert len(load(DataConfig(dataset="digits", heldout=1e-4)).heldout) == 1


def test_an_unprepared_tfds_set_names_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError, match=r"pip install tensorflow .*builder\('mnist', data_dir='.*download_and_prepare"):
        load(DataConfig(dataset="tfds:mnist", data_dir=str(tmp_path)))
    with pytest.raises(UserError, match="must be a set that tensorflow-datasets knows"):
        load(DataConfig(dataset="tfds:no_such_set", data_dir=str(tmp_path)))


def test_arrays_come_back_split(tmp_path):
    values = RNG.uniform(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values=values)
    for name in ("a.npy", "a.npz"):
        data = load(DataConfig(dataset=f"array:{tmp_path / name}"))
        assert data.train.shape == (36, 3) and data.heldout.shape == (4, 3) and data.image_shape is None
        np.testing.assert_array_equal(
            np.sort(np.concatenate([data.train, data.heldout]), axis=0), np.sort(values, axis=0)
        )


def test_integers_and_booleans_are_numbers():
    assert as_data(np.arange(20).reshape(10, 2)).train.dtype == np.float32
    assert as_data(np.eye(6, dtype=bool)).train.max() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 3)), "must not be empty"),
        (np.zeros((5, 0)), "must not be empty"),
        (np.zeros(5), "must be an array .samples, features.: got shape .5."),
        (np.zeros((1, 5)), "must hold at least 2 samples"),
        (
            np.array([[1.0, np.nan], [1e300, np.inf]]),
            "must be finite in single precision: got 3 NaN, infinite or huge values of 4",
        ),
        (np.array([["a", "b"], ["c", "d"]]), "must hold real numbers"),
        (np.array([[1j, 2], [3, 4]]), "must hold real numbers"),
    ],
)
def test_bad_arrays_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        as_data(values)


def test_constant_samples_cannot_be_normalised():
    with pytest.raises(UserError, match="must differ from their mean"):
        as_data(np.full((10, 3), 0.5), DataConfig(normalize="ufldl"))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nonsense", "unknown dataset nonsense"),
        ("patchs", "did you mean patches?"),
        ("patches:x", "takes nothing after a colon"),
        ("digits:x", "takes nothing after a colon"),
        ("tfds:", "needs a name"),
        ("array:", "needs a file"),
        ("images:", "needs a file"),
        ("array:/no/such/file.npy", "needs a file that exists"),
    ],
)
def test_bad_names_are_refused(dataset, message):
    with pytest.raises(UserError, match=message):
        load(DataConfig(dataset=dataset))


def test_a_patch_larger_than_the_image_is_refused(tmp_path):
    np.save(tmp_path / "small.npy", RNG.normal(size=(2, 12, 12)))
    with pytest.raises(UserError, match="patch_size must leave room"):
        load(DataConfig(dataset=f"images:{tmp_path / 'small.npy'}", patch_size=13))
    with pytest.raises(UserError, match="patch_size must leave room"):
        load(DataConfig(patch_size=500))


def test_pickles_and_other_files_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "whole.npy", np.zeros((10, 10)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:200])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    for name in ("objects.npy", "text.npy", "cut.npy", "cut.npz"):
        with pytest.raises(UserError, match=r"must be a \.npy or \.npz file of plain numbers"):
            load(DataConfig(dataset=f"array:{tmp_path / name}"))
    with pytest.raises(UserError, match="must hold one array, or the two called samples and labels: got 2"):
        load(DataConfig(dataset=f"array:{tmp_path / 'two.npz'}"))


def test_reading_a_large_file_is_announced(tmp_path, monkeypatch):

    lines = Watcher()
    np.save(tmp_path / "big.npy", RNG.uniform(size=(300, 4)).astype(np.float32))
    config = DataConfig(dataset=f"array:{tmp_path / 'big.npy'}")
    monkeypatch.setattr("sae_jax.data.LARGE_FILE", 1000)
    sweep(config, steps=1, d_hidden=2, observers=[lines])
    assert lines.lines[0] == "reading big.npy, 0.0 GiB" and lines.lines[1].startswith("data: ")
    monkeypatch.undo()
    assert large_file(config) is None

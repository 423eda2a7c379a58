"""Folders of shards: rows are what was written, batches a function of seed and step, and what is wrong is named."""

import json
import os
import shutil
import sys

import ml_dtypes
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

import sae_jax
from sae_jax import DataConfig, UserError
from sae_jax.data import activations, load, read
from sae_jax.data.parquet import as_npy
from sae_jax.data.shards import open_shards

# A step that no training here comes to.
LAST = 10**6
WIDTH, BATCH = 8, 32
RNG = np.random.default_rng(0)
SIZES = {"a.npy": 90, "b.npy": 70, "c.safetensors": 110, "d.parquet": 50}
HALF = {"a.npy": np.float16, "b.npy": ml_dtypes.bfloat16, "c.safetensors": np.float32, "d.parquet": np.float32}


def write(path, rows):
    """A shard of rows, by the end of its name."""
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".safetensors":
        save_file({"activations": np.ascontiguousarray(rows), "other": np.zeros(3, np.float32)}, path)
    else:
        column = pyarrow.FixedSizeListArray.from_arrays(rows.ravel(), WIDTH)
        pyarrow.parquet.write_table(
            pyarrow.table({"text": ["word"] * len(rows), "vector": column}), path, row_group_size=16
        )


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path):
    """Shards of every format and kind of number, and all of their rows."""
    every = []
    for name, number in SIZES.items():
        rows = RNG.normal(size=(number, WIDTH)).astype(HALF[name])
        write(tmp_path / name, rows)
        every.append(rows.astype(np.float32))
    return tmp_path, np.concatenate(every)


def config(folder, normalize="none", **settings):
    return DataConfig(dataset=f"activations:{folder}", normalize=normalize, **settings)


def numbers_of(rows, every):
    """Which of all rows some rows are."""
    numbers = {row.tobytes(): number for number, row in enumerate(every)}
    return [numbers[row.tobytes()] for row in np.ascontiguousarray(rows)]


def test_rows_are_those_that_were_written(folder):
    path, every = folder
    shards = open_shards(path)
    assert shards.rows == len(every) == 320 and shards.width == WIDTH
    for numbers in (np.arange(320), RNG.permutation(320)[:50], np.array([319, 0, 0, 90, 89])):
        np.testing.assert_array_equal(shards.read(numbers), every[numbers])


def test_a_parquet_file_that_was_changed_is_decoded_anew(folder):
    path, every = folder
    assert open_shards(path).shards[3].numbers == open_shards(path).shards[3].numbers
    write(path / "d.parquet", 2 * every[270:])
    os.utime(path / "d.parquet", ns=(1, 1))
    np.testing.assert_array_equal(open_shards(path).read(np.arange(270, 320)), 2 * every[270:])


def test_decoded_files_that_no_run_has_read_for_a_month_make_room(folder, tmp_path_factory):
    path = folder[0] / "d.parquet"
    read = as_npy(path)
    unread, copy = read.with_name("unread.npy"), tmp_path_factory.mktemp("other") / "e.parquet"
    unfinished = read.with_name(".unread.npy.00000-1-000000.partial")
    for file in (unread, unfinished):
        file.write_bytes(b"")
    shutil.copy(path, copy)
    for file in (read, unread, unfinished):
        os.utime(file, (1, 1))
    assert as_npy(path) == read and unread.exists()
    decoded = as_npy(copy)
    assert sorted(read.parent.iterdir()) == sorted([read, decoded])


def test_an_epoch_is_every_row_that_is_not_held_out_once(folder):
    path, every = folder
    data = load(config(path, heldout=0.1))
    assert len(data.heldout) == 32 and len(data.train) == 288
    held = set(numbers_of(data.heldout, every))
    block = data.stream.block(0, BATCH, LAST).batches
    epochs = [np.concatenate(block[first : first + 9]) for first in (0, 9)]
    for epoch in epochs:
        assert sorted(numbers_of(epoch, every)) == sorted(set(range(320)) - held)
    assert numbers_of(epochs[0], every) != numbers_of(epochs[1], every), "each epoch has an order of its own"
    assert numbers_of(epochs[0], every) != sorted(numbers_of(epochs[0], every))


def test_batches_are_a_function_of_seed_and_step(folder):
    path, _ = folder
    feeds = [load(config(path, data_seed=seed)).stream for seed in (1, 1, 2)]
    block = feeds[0].block(0, BATCH, LAST)
    np.testing.assert_array_equal(feeds[1].block(7, BATCH, LAST).batches[:5], block.batches[7:12])
    assert np.any(feeds[2].block(0, BATCH, LAST).batches[0] != block.batches[0])


def test_labels_and_names_go_with_their_rows(folder):
    path, every = folder
    np.save(path / "labels.npy", np.arange(320) % 3)
    (path / "names.txt").write_text("".join(f"token {i}\n" for i in range(320)))
    data = load(config(path, classes="0,2", samples=100))
    held = numbers_of(data.heldout, every)
    assert data.heldout_names == tuple(f"token {number}" for number in held)
    np.testing.assert_array_equal(data.heldout_labels, np.array(held) % 3)
    assert set(data.heldout_labels) == {0, 2} and set(data.left_out_labels) == {1}
    trained = {*numbers_of(np.concatenate(data.stream.block(0, 50, LAST).batches[:2]), every)}
    assert len(data.train) == len(trained) == 100 and trained == set(numbers_of(data.train, every))
    assert {number % 3 for number in trained} == {0, 2} and not trained & set(held)


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_those_of_all_rows_however_few_are_trained_on(folder, seed):
    path, _ = folder
    np.save(path / "labels.npy", np.arange(320) % 10)
    data = load(config(path, classes="0-8", samples=12, data_seed=seed, heldout=0.5))
    assert len(data.train) == 12 and set(data.heldout_labels) == set(range(9)) and set(data.left_out_labels) == {9}


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    path, _ = folder
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="a Parquet shard is read by the package pyarrow: got none; run: python -m pip"):
        load(config(path))
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match="a folder of shards is read by the package grain: got none"):
        load(config(path))


def test_a_folder_may_hold_rows_out_itself(folder):
    path, every = folder
    (path / "heldout").mkdir()
    apart = RNG.normal(size=(20, WIDTH)).astype(np.float32)
    write(path / "heldout" / "0.safetensors", apart)
    (path / "heldout" / "names.txt").write_text("\n".join("abcdefghijklmnopqrst") + "\n")
    data = load(config(path))
    np.testing.assert_array_equal(data.heldout, apart)
    assert "".join(data.heldout_names) == "abcdefghijklmnopqrst" and len(data.train) == len(every)


def test_streamed_batches_are_normalised_like_the_excerpt(folder):
    path, _ = folder
    data = load(config(path, normalize="standardize"))
    batch = data.stream.block(0, BATCH, LAST).batches[0]
    raw = load(config(path)).stream.block(0, BATCH, LAST).batches[0]
    np.testing.assert_array_equal(batch, data.normalisation.apply(raw))
    np.testing.assert_allclose(data.train.mean(axis=0), 0, atol=1e-6)
    lengths = np.linalg.norm(load(config(path, "auto")).train, axis=1)
    np.testing.assert_allclose(lengths.mean(), np.sqrt(WIDTH), rtol=1e-5)


def test_a_lane_is_its_solo_run_and_learns(folder):
    path, _ = folder
    settings = {"d_hidden": 12, "steps": 150, "batch_size": BATCH, "learning_rate": 0.01}
    grid = sae_jax.sweep(config(path), "topk", k=[2, 3], seeds=2, **settings)
    solo = sae_jax.sweep(config(path), "topk", k=3, seeds=[1], **settings)
    lane = grid.sel(k=3, seed=1)
    np.testing.assert_allclose(solo["decoder_weight"].squeeze(), lane["decoder_weight"], rtol=1e-5, atol=1e-6)
    assert np.all(grid["loss"].sel(step=150) < 0.7 * grid["loss"].sel(step=1))


def test_more_rows_than_an_excerpt_holds_are_trained_on(folder, monkeypatch):
    path, every = folder
    monkeypatch.setattr(activations, "EXCERPT", 40)
    monkeypatch.setattr(activations, "MEASURED", 10)
    data = load(config(path, heldout=0.5))
    assert len(data.train) == 40 and len(data.heldout) == 10, "no more are held out than are measured"
    trained = set(numbers_of(np.concatenate(data.stream.block(0, BATCH, LAST).batches[:9]), every))
    assert len(trained) == 288 and not trained & set(numbers_of(data.heldout, every))


def _overwritten(path, row, value):
    rows = np.load(path / "a.npy")
    rows[row, 3] = value
    np.save(path / "a.npy", rows)


def _cut(path):
    os.truncate(path / "c.safetensors", 2000)


def _without_lines(path):
    (path / "names.txt").write_text("one\n")


def _of_other_numbers(path):
    np.save(path / "a.npy", np.zeros((4, WIDTH), np.int8))


def _header(content):
    """Replaces the header of a shard."""

    def spoil(path):
        text = json.dumps(content).encode()
        (path / "c.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(256))

    return spoil


def _entry(dtype="F32", shape=(4, 8), offsets=(0, 128)):
    return _header({"x": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}})


BAD = {
    "NaN": (lambda path: _overwritten(path, 5, np.nan), r"a\.npy must hold finite numbers of at most 1e\+08: .* row 5"),
    "cut short": (_cut, r"shard .*c\.safetensors must hold 110 rows of 8, \d+ bytes: got 2000; write it anew"),
    "another width": (
        lambda path: np.save(path / "z.npy", np.zeros((4, 5), np.float32)),
        r"shards must be of one width: got 8 in a\.npy and 5 in .*z\.npy; leave one out",
    ),
    "no shard": (
        lambda path: [one.unlink() for one in path.iterdir()],
        r"must hold \.npy, \.safetensors, \.parquet files: got none in",
    ),
    "no folder": (lambda path: path.rename(f"{path}x"), "dataset activations needs a folder that exists: got .*; use"),
    "lines": (_without_lines, r"names\.txt must have a line for each of 320 rows: got 1; write it anew"),
    "no text": (lambda path: (path / "names.txt").write_bytes(b"\xff\xfe"), r"names\.txt must be a file of UTF-8 text"),
    "a pipe": (lambda path: os.mkfifo(path / "z.npy"), r"z\.npy must be a whole file of rows: got it is no regular"),
    "a pipe of names": (lambda path: os.mkfifo(path / "names.txt"), r"names\.txt must be a file of UTF-8 text: got it"),
    "a link to nothing": (lambda path: (path / "z.npy").symlink_to("nothing"), r"z\.npy must be a whole file of rows"),
    "integers": (_of_other_numbers, r"a\.npy must be a whole file of rows: got numbers of kind int8 instead of"),
    "a header of nothing": (_header([]), r"c\.safetensors must be a whole file of rows: got"),
    "negative sides": (_entry(shape=(-4, 8)), r"got shape \[-4, 8\] at bytes 0 to 128"),
    "half a row": (_entry(shape=(4.5, 8)), r"got shape \[4\.5, 8\] at bytes"),
    "half an offset": (_entry(offsets=(0.5, 128)), r"at bytes 0\.5 to 128"),
    "infinite": (_entry(shape=(float("inf"), 8)), r"c\.safetensors must be a whole file of rows: got"),
    "fewer bytes": (_entry(offsets=(0, 16)), r"got 16 bytes for shape \[4, 8\]"),
    "labels from a pipe": (lambda path: os.mkfifo(path / "labels.npy"), r"labels\.npy"),
    "a link to no heldout": (lambda path: (path / "heldout").symlink_to("nowhere"), "needs a folder that exists"),
    "doubles": (
        _entry(dtype="F64", offsets=(0, 256)),
        "a whole file of rows: got numbers of kind F64",
    ),
    "no npy": (lambda path: (path / "a.npy").write_bytes(b"x" * 200), r"a\.npy must be a whole file of rows: got"),
    "no parquet": (lambda path: (path / "d.parquet").write_bytes(b"x" * 200), r"d\.parquet must be a whole file"),
    "one axis": (lambda path: np.save(path / "a.npy", np.zeros(4, np.float32)), r"an array of shape \[4\] instead of"),
    "no rows": (lambda path: np.save(path / "a.npy", np.zeros((0, 8), np.float32)), r"an array of shape \[0, 8\]"),
    "columns": (
        lambda path: np.save(path / "a.npy", np.zeros((4, 8), np.float32, "F")),
        "an array in column order",
    ),
    "labels": (lambda path: np.save(path / "labels.npy", np.arange(7)), "one for each of 320 samples: got 7"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(folder, spoil, message):
    path, _ = folder
    spoil(path)
    with pytest.raises(UserError, match=message):
        load(config(path, heldout=0.5))


def test_settings_that_do_not_fit_are_refused(folder):
    path, _ = folder
    with pytest.raises(UserError, match="batch_size must be at most the number of training samples: got 300 of 288"):
        sae_jax.sweep(config(path), d_hidden=3, steps=2, batch_size=300, activation="relu", output="linear")
    with pytest.raises(UserError, match="optimizer lbfgs takes all samples at every step"):
        sae_jax.sweep(config(path), d_hidden=3, steps=2, optimizer="lbfgs", estimator="batch", output="linear")
    with pytest.raises(UserError, match="activations needs a folder of shards: got none"):
        read(DataConfig(dataset="activations:"))

"""Samples beside their targets: rows of both stay together, and are normalised apart."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from sae_jax import DataConfig, UserError, as_data
from sae_jax.data import load, outputs_of

SIZES, D_IN, OUTPUTS = (90, 70), 5, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(sum(SIZES), D_IN)).astype(np.float32)
# What belongs to a row is known from the row alone.
MAP = RNG.normal(size=(D_IN, OUTPUTS)).astype(np.float32)
Y = (4 * X @ MAP - 2).astype(np.float32)


def belong(rows, scale=1.0, shift=0.0):
    np.testing.assert_allclose(rows[:, D_IN:], scale * (4 * rows[:, :D_IN] @ MAP - 2) + shift, rtol=1e-3, atol=1e-3)


@pytest.fixture
def folders(tmp_path):
    """Two folders of shards, of other sizes each."""
    for name, values, sizes in (("x", X, SIZES), ("y", Y, SIZES[::-1])):
        (tmp_path / name).mkdir()
        for number, part in enumerate(np.split(values, [sizes[0]])):
            save_file({"activations": np.ascontiguousarray(part)}, tmp_path / name / f"{number}.safetensors")
    return tmp_path


@pytest.fixture
def arrays(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return tmp_path


def of_shards(folder, **settings):
    return DataConfig(dataset=f"activations:{folder / 'x'}", targets=str(folder / "y"), **settings)


def of_files(folder, **settings):
    return DataConfig(dataset=f"array:{folder / 'x.npy'}", targets=str(folder / "y.npy"), **settings)


def test_every_batch_of_a_stream_holds_rows_beside_their_own_targets(folders):
    data = load(of_shards(folders, normalize="none"))
    assert data.outputs == outputs_of(of_shards(folders)) == OUTPUTS
    assert data.train.shape == (144, D_IN + OUTPUTS) and len(data.heldout) == 16
    for rows in (data.train, data.heldout, *data.feed.block(3, 32, 9).batches[:4]):
        belong(rows)
    assert {tuple(row) for row in data.heldout} <= {tuple(row) for row in np.concatenate([X, Y], axis=1)}
    assert "5 features and 3 of their targets" in data.description
    np.testing.assert_array_equal(data.reconstructed, data.train[:, D_IN:])


def test_rows_held_out_by_folders_of_their_own(folders):
    for name, values in (("x", X), ("y", Y)):
        (folders / name / "heldout").mkdir()
        save_file({"activations": values[:20] + (values is X)}, folders / name / "heldout" / "0.safetensors")
    data = load(of_shards(folders, normalize="none"))
    assert len(data.heldout) == 20 and len(data.train) == 160
    np.testing.assert_allclose(np.sort(data.heldout[:, D_IN]), np.sort(Y[:20, 0]), rtol=1e-6)


@pytest.mark.parametrize("rule", ["length", "standardize", "centre", "unit"])
def test_inputs_and_targets_are_normalised_apart(rule, arrays, folders):
    data = load(of_files(arrays, normalize=rule))
    of_x = load(DataConfig(dataset=f"array:{arrays / 'x.npy'}", normalize=rule, subtract_mean="global"))
    of_y = load(DataConfig(dataset=f"array:{arrays / 'y.npy'}", normalize=rule, subtract_mean="global"))
    np.testing.assert_array_equal(data.train, np.concatenate([of_x.train, of_y.train], axis=1))
    np.testing.assert_array_equal(data.heldout, np.concatenate([of_x.heldout, of_y.heldout], axis=1))
    same = as_data(X, DataConfig(dataset="array", normalize=rule, subtract_mean="global"), targets=Y)
    np.testing.assert_array_equal(same.train, data.train)
    streamed = load(of_shards(folders, normalize=rule))
    [batch] = streamed.feed.block(0, 144, 1).batches[:1]
    assert {tuple(row) for row in batch} == {tuple(row) for row in streamed.train}


def test_other_targets_are_other_samples(arrays):
    before = load(of_files(arrays)).summary
    np.save(arrays / "y.npy", Y + 1e-6)
    assert load(of_files(arrays)).summary[-1] != before[-1]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Y[:50], "targets must have a row for each of the 160 samples, in their order: got 50 in targets"),
        (Y[:, 0], r"targets must be an array \[samples, outputs\]: got shape \[160\]"),
        (np.full_like(Y, np.nan), "targets must be finite"),
        (np.full((160, 2), "a"), "targets must hold real numbers: got dtype"),
    ],
)
def test_targets_that_are_none_are_refused(targets, message):
    with pytest.raises(UserError, match=message):
        as_data(X, targets=targets)


def test_folders_that_do_not_belong_together_are_refused(folders):
    (folders / "x" / "heldout").mkdir()
    with pytest.raises(UserError, match="samples and targets must both have a folder heldout, or none: got one in"):
        load(of_shards(folders))
    (folders / "y" / "0.safetensors").unlink()
    with pytest.raises(UserError, match="for each of the 160 samples, in their order: got 90 in"):
        load(of_shards(folders))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": "digits", "targets": "y"}, "targets must be beside array:FILE or activations:DIR: got y beside"),
        ({"dataset": "array:x.npy", "targets": "z.npy"}, "targets of array must be a file that exists: got z.npy"),
        ({"dataset": "activations:x", "targets": "z"}, "targets of activations must be a folder that exists: got z"),
        ({"dataset": "activations:x", "targets": "x.npy"}, "must be a folder that exists: got x.npy; use one with"),
        (
            {"dataset": "array:x.npy", "targets": "y.npy", "normalize": "unit", "subtract_mean": "patch"},
            "subtract_mean patch is of samples without targets: got it beside some; use global",
        ),
    ],
)
def test_targets_that_cannot_be_read_are_refused(config, message, arrays, monkeypatch):
    monkeypatch.chdir(arrays)
    with pytest.raises(UserError, match=message):
        load(DataConfig(**config))

"""Safetensors files that are written piece by piece and read as maps."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sae_jax.storage import arrays
from sae_jax.storage.tensors import map_tensors, save_tensors


def test_tensors_are_those_of_the_librarys_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", 64)
    rng = np.random.default_rng(0)
    tensors = {"weight": rng.normal(size=(3, 4, 5)).astype(np.float32), "bias": np.float32(rng.normal(size=7))}
    save_tensors(tmp_path / "ours", tensors, {"weight": "a,b,c"})
    save_file(tensors, tmp_path / "theirs", metadata={"weight": "a,b,c"})
    read = [load_file(tmp_path / "ours")]
    for name in ("ours", "theirs"):
        mapped, metadata = map_tensors(tmp_path / name)
        assert metadata == {"weight": "a,b,c"}
        read.append(mapped)
    for arrays_read in read:
        assert set(arrays_read) == set(tensors)
        for name, values in tensors.items():
            np.testing.assert_array_equal(arrays_read[name], values)
    with pytest.raises(ValueError, match="read-only"):
        read[1]["bias"][:] = 0


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_numbers_of_half_precision_are_written_as_they_are(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", 64)
    values = np.random.default_rng(0).normal(size=(30, 7)).astype(dtype)
    save_tensors(tmp_path / "halves", {"rows": values}, {})
    read = load_file(tmp_path / "halves")["rows"]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.astype(np.float32), values.astype(np.float32))


def test_a_file_without_metadata_has_none(tmp_path):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "bare")
    assert map_tensors(tmp_path / "bare")[1] == {}


def test_tensors_of_another_kind_are_refused(tmp_path):
    save_file({"weight": np.zeros(3, np.float64)}, tmp_path / "double")
    with pytest.raises(ValueError, match="weight must be F32, I32, BOOL: got F64"):
        map_tensors(tmp_path / "double")

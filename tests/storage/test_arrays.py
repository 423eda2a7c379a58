"""Arrays larger than memory: kept in files, written and read piece by piece."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sae_jax import UserError
from sae_jax.storage import arrays
from sae_jax.storage.arrays import in_folder, in_memory, no_storage, pieces


def test_an_opened_array_is_found_again_under_its_name(tmp_path):
    with in_folder(tmp_path / "unfinished") as on_disk:
        for opened in (in_memory(), on_disk):
            opened("loss", (3, 2), np.float32)[[0, 2], [1, 0]] = [4, 5]
            opened("loss", (3, 2), np.float32)[1] = 6
            found = opened("loss", (3, 2), np.float32)
            assert found.dtype == np.float32 and found.shape == (3, 2)
            assert (found[0, 1], found[2, 0], *found[1]) == (4, 5, 6, 6)
        assert [path.name for path in (tmp_path / "unfinished").iterdir()] == ["loss.npy"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_stands_where_arrays_are_to_be_kept_gives_way(kind, tmp_path):
    path = tmp_path / "unfinished"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path)
    with in_folder(path) as opened:
        opened("loss", (3, 2), np.float32)
        assert [one.name for one in tmp_path.glob("*/*")] == ["loss.npy"] and not path.is_symlink()
    assert not list(tmp_path.iterdir())


def test_what_is_put_nowhere_takes_no_memory():
    array = no_storage("loss", (10**6, 10**6), np.float32)
    array[[1, 2], 3] = [4, 5]
    assert array.shape == (10**6, 10**6) and array.dtype == np.float32


def test_a_disk_without_room_is_refused_before_anything_is_written_to_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with (
        pytest.raises(UserError, match=r"must be writable: got .*: No space left on device"),
        in_folder(tmp_path / "unfinished") as opened,
    ):
        opened("loss", (3, 2), np.float32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(), (5,), (7, 3), (2, 3, 4, 5), (0, 3), (4, 1, 1, 9)])
@pytest.mark.parametrize("limit", [1, 4, 40, 100, 10**6])
def test_pieces_are_small_and_make_the_whole_in_order(shape, limit, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", limit)
    whole = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    parts = list(pieces(whole))
    np.testing.assert_array_equal(np.concatenate([[], *(part.ravel() for _, part in parts)]), whole.ravel())
    assert all(part.nbytes <= max(limit, 4) for _, part in parts)
    for index, part in parts:
        np.testing.assert_array_equal(whole[index], part)


BOUNDED = """
import resource, sys
from pathlib import Path
import numpy as np
from sae_jax.storage.arrays import in_folder, pieces
from sae_jax.storage.tensors import map_tensors, save_tensors
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
folder, lanes, before = Path(sys.argv[1]), 40_000, peak()
with in_folder(folder / "unfinished") as opened:
    for start in range(0, lanes, 2000):
        opened("weight", (lanes, 2000), np.float32)[start : start + 2000] = start
    save_tensors(folder / "weights", {"weight": opened("weight", (lanes, 2000), np.float32)}, {})
total = sum(float(part.sum(dtype=float)) for _, part in pieces(map_tensors(folder / "weights")[0]["weight"]))
assert total == 2000 * 2000 * sum(range(0, lanes, 2000)), total
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pages of a mapped file are let go of on Linux only")
def test_memory_does_not_grow_with_the_arrays(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    words = [sys.executable, "-c", BOUNDED, tmp_path]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100  # MiB, of arrays of 305 MiB

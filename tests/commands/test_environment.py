"""Compiled programs are kept between processes."""

import contextlib
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from sae_jax.commands.environment import cache_folder, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.variables import OF_DRAWING
from sae_jax.settings import UserError
from sae_jax.storage import results
from sae_jax.storage.atomic import user_cache

WORDS = [
    "--dataset",
    "digits",
    "--steps",
    "30",
    "--d-hidden",
    "6",
    "--rho",
    "0.1",
    "--figures",
    "False",
    "--report",
    "False",
]


def test_a_second_run_compiles_nothing_and_finds_the_same_to_the_bit(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # Those around the time from which programs are written are compiled above it in one process and below in another.
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    del environment["JAX_COMPILATION_CACHE_DIR"]
    kept = []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "experiments.train", *WORDS, "--name", name]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        kept.append({path.name for path in (tmp_path / "cache").rglob("*-cache")})
    assert kept[0] == kept[1] and len(kept[0]) >= 3
    first, second = (results.load(tmp_path / "runs" / name) for name in ("first", "second"))
    assert len(first.data_vars) > 10
    assert all(first[name].values.tobytes() == second[name].values.tobytes() for name in first.variables)


def test_a_place_that_jax_was_told_of_is_kept(monkeypatch):
    told = jax.config.jax_compilation_cache_dir
    set_up()
    assert told is not None and jax.config.jax_compilation_cache_dir == told
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder().parent == Path("/somewhere/sae_jax")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user that nobody knows")
def test_who_has_no_home_trains_without_a_cache():
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    code = (
        "import jax, os; from sae_jax.commands.environment import set_up\n"
        "os.setuid(54321); set_up(); print(jax.config.jax_compilation_cache_dir)"
    )
    del environment["JAX_COMPILATION_CACHE_DIR"]
    environment |= {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def compiled(place, times=1):
    """What a process says that compiles a program as often, its cache in a place."""
    code = (
        "import sys, jax, warnings; from sae_jax.commands.environment import set_up\nset_up()\n"
        "for k in range(int(sys.argv[1])): jax.jit(lambda x: x * (k + 2))(1.0)\nwarnings.warn('of another kind')"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "JAX_COMPILATION_CACHE_DIR": str(place)}
    words = [sys.executable, "-c", code, str(times)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "UserWarning: of another kind" in done.stderr
    return [line for line in done.stderr.splitlines() if "of another kind" not in line]


def test_an_entry_of_the_cache_that_was_cut_short_is_written_anew(tmp_path):
    assert compiled(tmp_path) == []
    [entry] = tmp_path.glob("*lambda*-cache")
    whole = entry.stat().st_size
    os.truncate(entry, 100)
    assert compiled(tmp_path) == [] and entry.stat().st_size > whole / 2


def test_a_cache_that_cannot_be_written_to_is_told_in_one_line():
    told = "; name another folder in JAX_COMPILATION_CACHE_DIR"
    [line] = compiled("/proc/nowhere", times=2)
    assert line == f"warning: compiled programs cannot be kept: got /proc/nowhere: No such file or directory{told}"


def test_a_full_cache_is_told_once(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", lambda *_: pytest.fail("shown by JAX"))
    set_up()
    for name in ("jit_f", "jit_g"):
        text = f"Error writing persistent compilation cache entry for '{name}': OSError: [Errno 28] No space left"
        warnings.showwarning(UserWarning(text), UserWarning, "file", 1)
    assert capsys.readouterr().err.count("No space left; make room there") == 1


def test_who_has_warnings_raised_is_told_of_the_cache_all_the_same(capsys):
    set_up()
    text = "Error writing persistent compilation cache entry for 'jit_f': FileExistsError: [Errno 17] File exists: 'a'"
    warnings.warn(text, stacklevel=1)  # An error, as all warnings are here.
    assert capsys.readouterr().err.count("compiled programs cannot be kept") == 1


@pytest.mark.parametrize("allowed", [2**31, resource.RLIM_INFINITY])
def test_a_process_that_has_few_addresses_is_refused_before_it_compiles(allowed, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (allowed if kind == resource.RLIMIT_AS else 1024, -1))
    line = r"^the limit of addresses must be at least 2,621,440 kB: got 2,097,152 kB; raise ulimit -v$"
    with pytest.raises(UserError, match=line) if allowed > 0 else contextlib.nullcontext():
        set_up()


@pytest.mark.parametrize("kind", [FloatingPointError, ValueError])
def test_a_variable_that_has_jax_raise_at_what_lanes_may_hold_is_named_in_a_line(kind, capsys):
    ended = pytest.raises(SystemExit, match="2") if kind is FloatingPointError else pytest.raises(kind)
    with jax.debug_infs(True), ended, one_line_errors():
        raise kind("Invalid value (inf) encountered in sharded computation.\nand more")
    line = "JAX_DEBUG_INFS must be off, since lanes may hold such values: got Invalid value (inf) encountered"
    assert capsys.readouterr().err.startswith(f"error: {line}") == (kind is FloatingPointError)
    with pytest.raises(FloatingPointError), one_line_errors():
        raise FloatingPointError


def test_a_cache_that_is_no_whole_path_is_that_of_the_home(monkeypatch):
    for given in ("~nobody-of-this-name", "", "some/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert user_cache() == Path.home() / ".cache" / "sae_jax"


def test_a_process_that_may_open_few_files_is_refused_before_it_trains(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (32, 32))
    with pytest.raises(UserError, match=r"open files must be at least 64: got 32; raise ulimit -n"):
        set_up()


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("JAX_PLATFORMS", "cuda", "must name devices that JAX finds here: got cuda; unset it, or set it to cpu"),
        ("JAX_PLATFORMS", "abacus", "must name devices that JAX finds here: got abacus; unset it, or set it to cpu"),
        (
            "JAX_PLATFORM_NAME",
            "abacus",
            "must name devices that JAX finds here: got abacus; unset it, or set it to cpu",
        ),
    ],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU would be found")
def test_a_variable_that_jax_cannot_follow_is_named_in_a_line(name, value, fix):
    code = (
        "from sae_jax.commands.errors import one_line_errors\n"
        "with one_line_errors():\n    import jax; jax.local_devices()"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd(), name: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {name} {fix}\n")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("table", ["RUN", "--out", "x.md"]),
        ("report", ["RUN", "--out", "x.html"]),
        ("draw", ["RUN", "--out", "x"]),
        ("activations", ["--dataset", "digits", "--out", "x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_working_folder_that_was_removed_is_named_in_a_line(command, words, tmp_path):
    removed = tmp_path / "removed"
    code = (
        f"import os; os.mkdir({str(removed)!r}); os.chdir({str(removed)!r}); os.rmdir({str(removed)!r})\n"
        "import sae_jax.commands.main as command; command.main()"
    )
    run = Path(__file__).parents[1] / "storage" / "runs" / "format1"
    # As the installed command is started, without the working folder in the path: NumPy is not imported from a removed
    # one by Python 3.13.
    words = [sys.executable, "-P", "-c", code, command, *(str(run) if word == "RUN" else word for word in words)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    fix = "got one that was removed; change to another and repeat the command"
    assert done.stderr == f"error: the working folder must exist: {fix}\n"


@pytest.mark.parametrize(
    "words",
    [["-m", "experiments.table"], ["-c", "import sae_jax.commands.main as command; command.main()", "table"]],
    ids=["script", "console command"],
)
@pytest.mark.parametrize(("name", "value"), [("JAX_ENABLE_X64", "maybe"), ("JAX_DEFAULT_MATMUL_PRECISION", "some")])
def test_a_variable_that_jax_cannot_read_is_named_in_a_line(words, name, value):
    done = subprocess.run([sys.executable, *words], env=os.environ | {name: value}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {name} must be as JAX reads it: got {value}; unset it\n"


DRAWN = (
    "import matplotlib; from sae_jax.analysis import figures\n"
    "assert matplotlib.get_backend() == 'Agg' and matplotlib.rcParams['lines.linewidth'] == 1.5"
)


def settled(code, folder, **variables):
    """(exit code, what it printed, what it complained about) of code behind what every command does first."""
    code = f"from sae_jax.commands.variables import settle_variables\nsettle_variables()\n{code}"
    given = os.environ | {"PYTHONPATH": os.getcwd()} | {name: str(value) for name, value in variables.items()}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_figures_are_drawn_without_a_window_under_the_defaults_of_the_library(tmp_path):
    (tmp_path / "bad").write_bytes(b"lines.linewidth: 9\nno colon\nlines.no: 1\n\xff")
    os.mkfifo(tmp_path / "pipe")
    for name in ("bad", "pipe"):
        given = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": tmp_path / name, "MPLCONFIGDIR": tmp_path / "bad"}
        assert settled(DRAWN, tmp_path, **given) == (0, "", "")


def test_every_command_settles_variables_before_it_draws(tmp_path):
    code = "import os; from sae_jax.commands.main import main\ntry: main()\nexcept SystemExit: print(dict(os.environ))"
    words = [[sys.executable, "-c", code, "draw", "nowhere"], [sys.executable, "-im", "experiments.draw", "nowhere"]]
    asked = "import os; print(dict(os.environ))"
    for line in words:
        done = subprocess.run(line, input=asked, capture_output=True, text=True)
        assert all(f"{name!r}: {value!r}" in done.stdout for name, value in OF_DRAWING.items())


@pytest.mark.parametrize("name", ["matplotlibrc", "stylelib/some.mplstyle"])
def test_settings_that_matplotlib_reads_by_itself_are_refused_in_a_line(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("no colon\nbackend: nonsense\nlines.no: 1\n")
    assert settled(DRAWN, tmp_path, MPLCONFIGDIR=tmp_path) == (0, "", "")
    fix = f"must be a file of text in UTF-8, as matplotlib reads it: got {path}; rename it"
    path.write_bytes(b"\xff")
    assert settled(DRAWN, tmp_path, MPLCONFIGDIR=tmp_path) == (2, "", f"error: {path.name} {fix}\n")
    path.unlink()
    os.mkfifo(path)
    assert settled(DRAWN, tmp_path, MPLCONFIGDIR=tmp_path) == (2, "", f"error: {path.name} {fix}\n")


def test_a_folder_of_the_name_of_settings_is_passed_over(tmp_path):
    (tmp_path / "matplotlibrc").mkdir()
    assert settled(DRAWN, tmp_path) == (0, "", "")


@pytest.mark.parametrize("name", ["HDF5_DRIVER", "HDF5_VOL_CONNECTOR"])
@pytest.mark.parametrize("value", ["unknown", "core"])
def test_results_are_in_files_of_the_usual_kind(tmp_path, name, value):
    code = "import h5py\nwith h5py.File('some.h5', 'w') as file: file['a'] = 1\nprint(h5py.File('some.h5')['a'][()])"
    assert settled(code, tmp_path, **{name: value}) == (0, "1\n", "")


@pytest.mark.parametrize("flags", ["hello", "--unknown=1", "--xla_force_host_platform_device_count=abc"])
def test_flags_that_xla_cannot_read_are_named_in_a_line(tmp_path, flags):
    line = f"error: XLA_FLAGS must be flags that this version of XLA knows: got {flags}; unset it\n"
    assert settled("import jax; jax.local_devices()", tmp_path, XLA_FLAGS=flags) == (2, "", line)


def test_a_pipe_of_flags_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    line = "error: XLA_FLAGS must be flags that this version of XLA knows: got pipe; unset it\n"
    assert settled("", tmp_path, XLA_FLAGS="pipe") == (2, "", line)


def test_flags_that_xla_reads_are_kept(tmp_path):
    code = "import jax; print(jax.local_device_count())"
    assert settled(code, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=3") == (0, "3\n", "")

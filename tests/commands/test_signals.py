"""Real processes that are killed, asked to end, and left without room, and what comes of their runs."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import processes
from tests.processes import ended

GRID = [
    "--rho",
    "0.05",
    "0.1",
    "--beta",
    "0.5",
    "2",
    "--seeds",
    "3",
    "--samples",
    "500",
    "--d-hidden",
    "8",
    *("--figures", "False", "--report", "False"),
]
# Three chunks; and a checkpoint whenever one may be.
WORDS = [*GRID, "--batch-size", "64", "--steps", "2000", "--devices", "2", "--lanes-per-chunk", "4"]
A_QUARTER = "training: step 1500 of 6000"
OFTEN = ["--checkpoint-every", "0"]
FILES = ("results.nc", "params.safetensors")


def start(folder, *words, command="sweep"):
    return processes.start(["-m", f"experiments.{command}", *words], folder)


def read_until(process, beginning):
    """What it prints up to a line that begins so; None where it ends before."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return lines
    return None


def bytes_of(run):
    return [(run / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run that nothing interrupts, and the seconds that it took from the plan on."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, *WORDS, "--name", "run")
    assert "3 chunks" in read_until(process, "plan: 12 lanes")[-1]
    began = time.monotonic()
    _, complaint, code = ended(process)
    assert (code, complaint) == (0, ""), complaint
    return bytes_of(folder / "runs" / "run"), time.monotonic() - began


def test_a_run_that_is_killed_twenty_times_finds_the_same_to_the_bit(whole, tmp_path):
    files, seconds = whole
    rng, longest = random.Random(0), 0.5
    kills, finished = 0, 0
    while kills < 20 or not finished:
        name = f"run{finished}"
        process = start(tmp_path, *WORDS, *OFTEN, "--name", name)
        # At first while it compiles, then ever later, so that it is killed in every phase and yet gets to its end.
        if read_until(process, "plan: "):
            time.sleep(rng.uniform(0.0, longest))
        longest = min(1.15 * longest, seconds)
        process.send_signal(signal.SIGKILL)
        _, complaint, code = ended(process)
        assert code in (0, -signal.SIGKILL), complaint
        kills += code != 0
        run = tmp_path / "runs" / name
        if (run / "results.nc").exists() and not (run / "unfinished").exists():
            assert bytes_of(run) == files
            finished += 1
        assert kills < 60
    assert kills >= 20 and finished >= 1


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_is_asked_to_end_saves_says_how_to_go_on_and_does_so_soon(number, expected, whole, tmp_path):
    process = start(tmp_path, *WORDS, "--runs", "all")
    assert read_until(process, A_QUARTER)
    began = time.monotonic()
    process.send_signal(number)
    out, complaint, code = ended(process)
    assert time.monotonic() - began < 10
    [run] = (tmp_path / "all").iterdir()
    go_on = f"python -m experiments.sweep --resume all/{run.name}"
    assert (code, complaint) == (expected, f"interrupted; what was trained is saved; to resume: {go_on}\n")
    # By the command that was told, or by the one that began the run.
    again = ["--resume", f"all/{run.name}"] if number == signal.SIGINT else [*WORDS, "--runs", "all"]
    out, complaint, code = ended(start(tmp_path, *again))
    assert (code, complaint) == (0, "")
    assert f"resuming all/{run.name}: " in out and "training: step 0 of" not in out
    assert bytes_of(run) == whole[0]
    assert [one.name for one in (tmp_path / "all").iterdir()] == [run.name]


def test_while_it_compiles_too_a_process_ends_soon_when_asked_to(tmp_path):
    # A fresh cache, and a program that takes long to compile and a step of it to run.
    words = [
        "--optimizer",
        "lbfgs",
        "--estimator",
        "batch",
        "--samples",
        "60000",
        "--d-hidden",
        "300",
        "--steps",
        "50",
        "--name",
        "run",
    ]
    process = start(tmp_path, *words)
    assert read_until(process, "compiling: ")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, complaint, code = ended(process)
    assert time.monotonic() - began < 10
    assert code == 143 and complaint.strip().startswith("interrupted; ")
    assert complaint.strip().endswith("to resume: python -m experiments.sweep --resume runs/run")


@pytest.mark.parametrize("command", ["sweep", "evaluate"])
@pytest.mark.parametrize("module", ["numpy", "tyro", "jax", "sae_jax.models", "xarray", "h5py"])
def test_while_libraries_are_imported_an_interrupt_is_one_line(command, module, tmp_path):
    words = [sys.executable, "-X", "importtime", "-m", f"experiments.{command}", "run"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(signal.SIGINT)
                break
        said = [line for line in process.stderr if not line.startswith("import time:")]
        assert (process.wait(60), said) == (130, ["interrupted\n"])


def test_an_interrupt_where_nothing_can_be_raised_is_raised_again_and_what_is_half_done_is_taken_away(tmp_path):
    code = (
        "import gc, os, signal, time\n"
        "from sae_jax.commands.errors import one_line_errors\n"
        "from sae_jax.commands.signals import end_at_once, end_in_order\n"
        "end_at_once(); end_in_order()\n"
        "def collected(phase, _):\n"
        "    gc.callbacks.clear()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0)\n"
        "with one_line_errors():\n"
        "    try:\n"
        "        gc.callbacks.append(collected); gc.collect(); time.sleep(60)\n"
        "    finally:\n"
        "        print('taken away')\n"
    )
    out, complaint, code = ended(processes.start(["-c", code], tmp_path, anew=True))
    assert (out, complaint, code) == ("taken away\n", "interrupted\n", 130)


def test_a_process_whose_readers_are_gone_ends_all_the_same(tmp_path):
    code = (
        "import time; from sae_jax.commands.signals import interrupts_of\n"
        "with interrupts_of('last words'): print('hearing', flush=True); time.sleep(60)"
    )
    reading, writing = os.pipe()
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, env=os.environ) as process:
        assert process.stdout.readline() == b"hearing\n"
        os.close(reading)
        os.close(writing)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 143


def test_a_changed_command_on_an_unfinished_run_is_refused_and_the_run_left_as_it_is(tmp_path):
    process = start(tmp_path, *WORDS, *OFTEN, "--name", "run")
    assert read_until(process, A_QUARTER)
    # It is at work now, and has not ended when the other one looks: nobody else may be.
    process.send_signal(signal.SIGSTOP)
    _, complaint, code = ended(start(tmp_path, *WORDS, *OFTEN, "--name", "run"))
    assert code == 2 and complaint.count("\n") == 1
    assert complaint.startswith("error: one process at a time may use a run's folder: got runs/run, in use by")
    process.kill()
    ended(process)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    # No run, so that --resume does not mean it.
    (tmp_path / "run").mkdir()
    for words in (["--rho", "0.2", *WORDS[3:], "--name", "run"], ["--resume", "run", "--rho", "0.2"]):
        _, complaint, code = ended(start(tmp_path, *words))
        assert code == 2 and complaint.count("\n") == 1
        rule = "error: cannot resume: the command must be the one that started the run: got runs/run with "
        assert f"{rule}rho [0.05 0.1] -> 0.2" in complaint
        assert "repeat python -m experiments.sweep --rho 0.05 0.1" in complaint
    _, complaint, code = ended(start(tmp_path, "--resume", "run", "--unit-parallel", "2"))
    assert code == 2 and f"{rule}unit_parallel 1 -> 2; add --unit-parallel 1" in complaint
    _, complaint, code = ended(start(tmp_path, "runs/run", command="evaluate"))
    assert code == 2 and complaint.count("\n") == 1
    fix = "resume it by the command that began it: --resume runs/run"
    assert f"a run must be finished: got runs/run, an unfinished one; {fix}" in complaint
    swapped = ["--beta", "0.5", "2", "--rho", "0.05", "0.1", *WORDS[6:], "--name", "run"]
    _, complaint, code = ended(start(tmp_path, *swapped))
    assert (
        code == 2
        and "the one that started the run: got runs/run with axes [rho beta] -> [beta rho]; repeat" in complaint
    )
    after = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    before.pop(tmp_path / "runs" / "run" / ".lock")
    assert after == before


def test_a_run_that_is_gone_on_with_under_other_flags_of_jax_says_so(tmp_path, monkeypatch):
    process = start(tmp_path, *WORDS, *OFTEN, "--name", "run")
    assert read_until(process, A_QUARTER)
    process.kill()
    ended(process)
    monkeypatch.setenv("JAX_THREEFRY_PARTITIONABLE", "0")
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "float32")
    out, complaint, code = ended(start(tmp_path, "--resume", "run"))
    assert (code, complaint) == (0, "")
    warning = "warning: results are the same to the bit only with the same versions: got"
    assert [line for line in out.splitlines() if line.startswith("warning: results")] == [
        f"{warning} jax_default_matmul_precision None -> float32",
        f"{warning} jax_threefry_partitionable True -> None",
    ]


def test_a_disk_that_fills_up_ends_the_run_with_a_line_and_leaves_it_to_be_gone_on_with(whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no file systems for us")
    try:
        process = start(tmp_path, *WORDS, *OFTEN, "--runs", str(disk), "--name", "run")
        assert read_until(process, A_QUARTER)
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"0" * 1024)
        _, complaint, code = ended(process)
        assert code == 2 and complaint.count("\n") == 1
        assert "must be writable: got " in complaint and ": No space left on device; make room" in complaint
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        out, complaint, code = ended(start(tmp_path, *WORDS, "--runs", str(disk), "--name", "run"))
        assert (code, complaint) == (0, "") and "training: step 0 of" not in out
        assert bytes_of(disk / "run") == whole[0]
    finally:
        process.kill()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_that_vanishes_ends_the_run_with_a_line(tmp_path):
    process = start(tmp_path, *WORDS, *OFTEN, "--name", "run")
    assert read_until(process, A_QUARTER)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    _, complaint, code = ended(process)
    assert code == 2 and complaint.count("\n") == 1
    assert complaint.startswith("error: the run's folder must be writable: got runs/run")
    assert not [path for path in tmp_path.glob("runs/**/*") if path.is_file()]


def test_train_is_gone_on_with_too(tmp_path):
    words = ["--samples", "500", "--d-hidden", "8", "--steps", "6000", "--seed", "3", "--name", "run"]
    process = start(tmp_path, *words, command="train")
    assert read_until(process, "training: step 1500 of 6000")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[2] == 143
    out, complaint, code = ended(start(tmp_path, "--resume", "runs/run", command="sweep"))
    assert (
        code == 2
        and "the command must be the one that started the run: got python -m experiments.sweep; use python -m expe"
        in complaint
    )
    out, complaint, code = ended(start(tmp_path, "--resume", "runs/run", command="train"))
    assert (code, complaint) == (0, "") and "resuming runs/run" in out

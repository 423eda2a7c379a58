"""Real processes that train one sweep together, over loopback."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

from sae_jax import UserError
from sae_jax.commands.cluster import launch
from sae_jax.storage import results
from tests.parity.cases import FIXTURES
from tests.processes import start as start_python

DICTIONARY = FIXTURES / "folders" / "batchtopk-training"

SMALL = ["--samples", "300", "--d-hidden", "6", "--batch-size", "50", "--seeds", "2"]
# A process that waits for another computes all the while: samples are those that are read soonest, and what the first
# one does alone, as the page, is left out where nothing is asked of it.
GRID = ["--steps", "20", "--rho", "0.05", "0.1", "--beta", "0.5", "2", "--corruption", "gaussian", "--noise", "0.1"]
GRID += ["--figures", "False", "--dataset", "digits"]
LONG = ["--dataset", "digits", "--steps", "300000", "--rho", "0.05", "--beta", "1", "--name", "long"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder, *each, anew=False):
    """Processes of one sweep, each with the words of its own beside those of a small one."""
    return run_together(folder, [["-m", "experiments.sweep", *SMALL, *words] for words in each], anew)


def run_together(folder, each, anew=False):
    """Processes of one run, each a list of words for Python; where they are several, they find each other."""
    port, running = free_port(), []
    for number, words in enumerate(each):
        others = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(len(each)), "--process-id", str(number)]
        together = ["--distributed", *others] if len(each) > 1 else []
        running.append(start_python([*words, *together], folder, anew=anew))
    return running


def ended(running, seconds=240):
    """(exit code, what it printed, what it complained about) of every process, none of which may hang."""
    try:
        found = [process.communicate(timeout=seconds) for process in running]
    finally:
        for process in running:
            with process:  # Closes its pipes and waits for it.
                process.kill()
    return [(process.returncode, *texts) for process, texts in zip(running, found, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the sweep is that the others are held to: one process, four devices."""
    folder = tmp_path_factory.mktemp("alone")
    words = [*GRID, "--devices", "4", "--keep-state", "True", "--report", "False", "--name", "run"]
    [(code, _, complaint)] = ended(start(folder, words))
    assert (code, complaint) == (0, "")
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """The sweep that the others are held to."""
    return results.load(folder / "runs" / "run")


@pytest.mark.parametrize(
    ("processes", "devices", "how"),
    [
        (2, 2, []),
        (3, 1, []),
        (2, 1, ["--data-parallel", "2"]),
        (2, 1, ["--unit-parallel", "2"]),
        (2, 2, ["--data-parallel", "2", "--unit-parallel", "2"]),
    ],
    ids=["2x2", "3x1", "2x1 batch", "2x1 units", "2x2 both"],
)
def test_many_processes_train_what_one_does(alone, processes, devices, how, tmp_path):
    words, same = [*GRID, "--devices", str(devices), *how, "--name", "run"], processes * devices == 4 and not how
    # Where bits are compared, sets of names are in an order of its own in each.
    leader, *followers = ended(start(tmp_path, *[words] * processes, anew=same))
    assert (leader[0], leader[2]) == (0, "")
    assert followers == [(0, "", "")] * (processes - 1)
    assert f"on {processes * devices} CPU devices of {processes} processes" in leader[1]
    assert "[Gloo]" not in leader[1] and "files:" in leader[1] and "runs/run/report.html" in leader[1]
    together = results.load(tmp_path / "runs" / "run")
    if same:
        # The same blocks on as many devices: the same bits.
        xr.testing.assert_equal(together, alone)
    for name, values in alone.data_vars.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "words",
    [
        ["--extend", "run", "--rho", "0.05", "0.1", "0.2"],
        ["--start-from", "run", "--steps", "20"],
        [
            "--start-from",
            str(DICTIONARY),
            "--dataset",
            "superposition:features=12,inputs=6",
            "--seeds",
            "4",
            "--steps",
            "9",
        ],
    ],
    ids=["extend", "start from", "start from a dictionary"],
)
def test_many_processes_go_on_from_what_one_has_trained(words, folder, tmp_path):
    words, loaded = (
        ["-m", "experiments.sweep", *words, "--figures", "False", "--report", "False", "--runs", str(folder / "runs")],
        [],
    )
    for processes, devices in ((1, 4), (2, 2)):
        named = [*words, "--devices", str(devices), "--name", f"{tmp_path.name}{processes}"]
        for code, _, complaint in ended(run_together(tmp_path, [named] * processes)):
            assert (code, complaint) == (0, "")
        loaded.append(results.load(folder / "runs" / named[-1]))
    xr.testing.assert_equal(*loaded)


def test_processes_that_are_asked_to_end_go_on_together_to_the_same_bits(tmp_path):
    words = [
        *GRID,
        "--devices",
        "2",
        "--lanes-per-chunk",
        "4",
        "--checkpoint-every",
        "0",
        "--report",
        "False",
        "--name",
    ]
    undisturbed = ended(start(tmp_path, *[[*words, "whole"]] * 2))
    assert [code for code, _, _ in undisturbed] == [0, 0]
    running = start(tmp_path, *[[*words, "run"]] * 2)
    while not running[0].stdout.readline().startswith("compiling"):
        assert running[0].poll() is None, running[0].stderr.read()
    # One of them hears it; both save, and both end.
    running[1].send_signal(signal.SIGTERM)
    leader, follower = ended(running, 60)
    assert (leader[0], follower) == (143, (143, "", ""))
    assert leader[2].startswith("interrupted; what was trained is saved; to resume: ")
    leader, follower = ended(start(tmp_path, *[["--resume", "run"]] * 2))
    assert (leader[0], leader[2], follower) == (0, "", (0, "", ""))
    assert "resuming runs/run" in leader[1]
    for name in ("results.nc", "params.safetensors"):
        assert (tmp_path / "runs/run" / name).read_bytes() == (tmp_path / "runs/whole" / name).read_bytes()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_when_one_process_is_killed_the_others_end_and_say_so(victim, tmp_path):
    running = start(tmp_path, *[[*LONG, "--devices", "1"]] * 3)
    while not running[0].stdout.readline().startswith("training"):
        assert running[0].poll() is None, running[0].stderr.read()
    began = time.monotonic()
    running[victim].kill()
    found = ended(running, 60)
    assert time.monotonic() - began < 60
    for number, (code, _, complaint) in enumerate(found):
        if number != victim:
            assert code not in (0, 2)
            assert complaint.startswith("error: the processes of this run have lost each other")
            assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("each", "message"),
    [
        ([["--beta", "-1"]] * 2, "error: --beta: beta must be >= 0: got -1; the default is 0.5 1 2\n"),
        (
            [["--dataset", "array:first.npy"], ["--dataset", "array:second.npy"]],
            "error: all processes must have the same command line: process 1 differs from process 0; start all alike\n",
        ),
        # Only the first process looks at the folder.
        (
            [["--name", "taken"]] * 2,
            "error: the run's folder must be new, empty or of an unfinished run: got runs/taken; choos",
        ),
    ],
    ids=["flag", "command", "folder"],
)
def test_what_one_process_refuses_all_refuse_in_one_line(each, message, tmp_path):
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "results.nc").write_text("precious")
    leader, follower = ended(start(tmp_path, *each))
    assert leader[:2] == (2, "") and leader[2].startswith(message) and leader[2].count("\n") == 1
    assert follower == (2, "", "")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["runs/taken/results.nc"]


JOINED = """
import sys, time
from sae_jax import UserError
from sae_jax.commands.cluster import launch
from sae_jax.commands.errors import one_line_errors
from sae_jax.sweeps.processes import agree, gather, leads, together

def refuse(words):
    raise UserError(words)

with one_line_errors():
    launch(sys.argv[1:])
    number = int(sys.argv[-1])
"""


def test_processes_in_different_phases_end_with_an_error_that_names_both(tmp_path):
    code = JOINED + (
        "    try:\n"
        "        together(['claim the folder', 'train', 'claim the folder'][number], lambda: None)\n"
        "    except UserError as error:\n"
        "        print(error)\n"
        "        raise\n"
    )
    line = (
        "all processes must be in the same phase: process 1 is at 'train', process 0 at 'claim the folder'; "
        "start all with the same command and the same version\n"
    )
    leader, *followers = ended(run_together(tmp_path, [["-c", code]] * 3), 60)
    assert leader == (2, line, f"error: {line}") and followers == [(2, line, "")] * 2


def test_what_each_process_returns_reaches_all_however_long_it_is_and_takes(tmp_path):
    code = JOINED + (
        "    values = [[0, ''], [1, 'ä' * 400]]\n"
        "    print(gather('load the data', lambda: values[number]) == values)\n"
        "    print(together('load the data', lambda: time.sleep(4 * leads()) or number) == number)\n"
        "    agree('load the data', 'samples', [float('nan'), 'x' * 508])\n"
        "    try:\n"
        "        together('train', lambda: refuse('only one refuses') if number else None)\n"
        "    except UserError as error:\n"
        "        print(error)\n"
        "    agree('train', 'number', number)\n"
    )
    leader, follower = ended(run_together(tmp_path, [["-c", code]] * 2), 60)
    printed = "True\nTrue\nonly one refuses\n"
    differs = "error: all processes must have the same number: process 1 differs from process 0; start all alike\n"
    assert leader == (2, printed, differs) and follower == (2, printed, "")


def test_a_process_that_ends_while_another_waits_for_it_is_noticed(tmp_path):
    code = (
        JOINED + "    together('train', lambda: sys.stdout.flush() or __import__('os')._exit(9) if number else None)\n"
    )
    leader, follower = ended(run_together(tmp_path, [["-c", code]] * 2), 60)
    assert follower[0] == 9 and leader[0] not in (0, 2)
    assert leader[2].startswith("error: the processes of this run have lost each other") and leader[2].count("\n") == 1


@pytest.mark.parametrize("leaving", ["sys.exit(0)", "(_ for _ in ()).throw(GeneratorExit)"])
def test_whatever_ends_a_process_ends_those_that_wait_for_it(leaving, tmp_path):
    code = JOINED + f"    together('train', lambda: {leaving} if number else None)\n"
    leader, follower = ended(run_together(tmp_path, [["-c", code]] * 2), 60)
    assert follower[0] == 1 and leader[0] not in (0, 2)
    assert leader[2].startswith("error: the processes of this run have lost each other") and leader[2].count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--coordinator", "a:1", "--processes", "2"], "--coordinator, --processes must stand beside --distributed"),
        (["--distributed", "perhaps"], "distributed must be True or False: got 'perhaps'"),
        (["--distributed", "--processes=x"], "processes must be a whole number: got 'x'"),
        (["--distributed", "--process-id", "-2"], "process_id must be >= -1: got -2"),
        (["--distributed", "--coordinator", "host"], "coordinator must be HOST:PORT: got host; add the port"),
    ],
)
def test_bad_launches_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        launch(words)


def test_a_launch_without_a_cluster_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "experiments.train", "--distributed"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the other processes must be known: ") and done.stderr.count("\n") == 1
    assert "--coordinator HOST:PORT" in done.stderr and not list(tmp_path.iterdir())

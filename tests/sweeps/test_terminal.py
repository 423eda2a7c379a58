"""What a sweep shows while it trains: the numbers of a line, and who is shown what from Python."""

import errno
import importlib.util
import io
import os
import pty
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from sae_jax import SweepWarning, as_data, sweep
from sae_jax.sweeps.lane_warnings import warnings_of
from sae_jax.sweeps.observers import Points, Progress
from sae_jax.sweeps.streams import unfailing
from sae_jax.sweeps.terminal import Status, Terminal, shown
from tests.conftest import CACHE

SETTINGS = {"d_hidden": 5, "batch_size": 32, "steps": 210}


class Clock:
    """A clock that is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


def test_numbers_are_medians_over_lanes_that_are_finite_and_the_time_left():
    clock = Clock()
    status = Status(clock)
    status.progress(Progress("compiling", 0, 20_000, 3))
    clock.now += 500  # Compiling is no part of the rate.
    status.progress(Progress("training", 1000, 20_000, 3))
    assert status.numbers() == "-:--:-- left"
    clock.now += 600
    status.progress(Progress("training", 2000, 20_000, 3))
    status.points(Points(2000, {}, {"loss": np.array([3.0, np.nan, 1.0, 1.5]), "loss_kl": np.array([9.0] * 4)}))
    status.measures(
        Points(2000, {}, {"explained_variance": np.array([0.5, 0.75]), "dead_fraction": np.array([0, 0.5])})
    )
    assert status.numbers() == "loss 1.5, explained variance 0.625, dead 25%, 3:00:00 left"
    status.points(Points(2001, {}, {"loss": np.array([np.nan])}))
    assert status.numbers().startswith("loss 1.5, ")  # Lanes that have ended say nothing new.


def test_a_file_receives_a_line_at_each_quarter_and_each_minute(capsys):
    clock = Clock()
    with Terminal(clock) as terminal:
        terminal.progress(Progress("compiling", 0, 1000, 3, 1, 2))
        for step in range(0, 1001, 10):
            terminal.progress(Progress("training", step, 1000, 3, 1, 2))
            clock.now += 10 if step < 250 else 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling: 1000 steps, 3 lanes, program 2 of 2"
    assert [int(re.search("step ([0-9]+) of 1000, 3 lanes, program 2 of 2; ", line)[1]) for line in lines[1:]] == [
        *(0, 60, 120, 180, 240),  # each minute
        *(250, 500, 750, 1000),  # each quarter
    ]
    assert lines[2].endswith("; 0:15:40 left")


def test_without_a_terminal_a_sweep_from_python_prints_nothing_but_its_warnings(data, capsys):
    with pytest.warns(SweepWarning) as caught:
        made = sweep(data, **SETTINGS, learning_rate=[0.01, 1e38])
    assert capsys.readouterr() == ("", "")
    expected = [line.removeprefix("warning: ") for line in warnings_of(made)]
    assert [str(one.message) for one in caught] == expected and expected[0].startswith("1 of 2 lanes turned non-finite")
    assert issubclass(SweepWarning, UserWarning) and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(data, **SETTINGS | {"steps": 2000})


def test_a_sweep_from_python_shows_its_plan_and_its_numbers_where_asked_to(data, capsys):
    hidden = sweep(data, **SETTINGS, beta=[0.5, 2.0], seeds=2)
    assert capsys.readouterr().out == ""
    shown = sweep(data, **SETTINGS, beta=[0.5, 2.0], seeds=2, progress=True)
    printed = capsys.readouterr().out
    assert re.search("^plan: 4 lanes ", printed, re.MULTILINE)
    last = printed.splitlines()[-1]
    loss = float(np.median(shown["loss"].isel(step=-1)))
    assert f"training: step 210 of 210, 4 lanes; loss {loss:.4g}, " in last
    for name in shown.variables:  # To the bit.
        np.testing.assert_array_equal(shown[name], hidden[name])


class Tee:
    """A stream that is no more than written to."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def test_a_stream_that_is_closed_in_the_middle_loses_only_what_is_printed():
    stream = io.StringIO()
    printing = unfailing(stream)
    printing.write("before")
    assert printing.failure is None
    stream.close()
    printing.write("after")
    printing.flush()
    assert printing.failure.errno == errno.EBADF


@pytest.mark.parametrize("stream", [Tee, closed, lambda: None], ids=["tee", "closed", "none"])
def test_any_stream_may_stand_where_a_sweep_prints(stream, monkeypatch):
    monkeypatch.setattr("sys.stdout", made := stream())
    with shown(None) as nobody:
        assert nobody is None
    with shown(True) as terminal:
        terminal.line("a line")
    assert not isinstance(made, Tee) or made.text == "a line\n"


SCRIPT = """
import sae_jax, sys
sae_jax.sweep(sae_jax.DataConfig(dataset="digits"), steps=300, d_hidden=9, beta=[0.5, 2.0], **{})
"""


@pytest.mark.parametrize(("arguments", "shows"), [("{}", True), ('{"progress": False}', False)])
def test_at_a_terminal_a_sweep_from_python_shows_itself_unless_told_not_to(arguments, shows, tmp_path):
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": CACHE, "COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-c", SCRIPT.replace("{}", arguments)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=follower, stderr=subprocess.PIPE) as process:
        os.close(follower)
        printed = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # The other end is closed.
                break
            if not part:
                break
            printed += part
        complaint = process.stderr.read()
    os.close(leader)
    assert process.returncode == 0, complaint
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode()).replace("\r", "\n")
    if not shows:
        assert text == ""
        return
    assert re.search("^plan: 2 lanes ", text, re.MULTILINE)
    assert re.search(r"training [0-9]+/300 loss [0-9.]+, ", text)
    assert max(map(len, re.findall(r"training [^\r\n]*", text))) <= 80


CELL = """
import sae_jax
results = sae_jax.sweep(sae_jax.DataConfig(dataset="digits"), steps=10000, d_hidden=9, beta=[0.5, 2.0])
print("done")
"""


@pytest.mark.skipif(importlib.util.find_spec("ipykernel") is None, reason="ipykernel is not there")
@pytest.mark.filterwarnings("ignore")
def test_in_a_notebook_one_line_is_written_over_again_and_again(tmp_path):
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_cmd=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": CACHE, "IPYTHONDIR": str(tmp_path)}
    manager.start_kernel(env=environment, cwd=str(tmp_path))
    client = manager.client()
    messages = []
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(CELL, timeout=240, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply
    kinds = [message["msg_type"] for message in messages]
    shown = [message["content"]["data"]["text/plain"] for message in messages if "data" in message["content"]]
    lines = "".join(message["content"]["text"] for message in messages if message["msg_type"] == "stream").splitlines()
    assert kinds.count("display_data") == 1 and kinds.count("update_display_data") == len(shown) - 1 > 3
    assert lines[0].startswith("data: ") and lines[1].startswith("plan: 2 lanes") and lines[-1] == "done"
    assert len(lines) == 3 or "SweepWarning" in "".join(lines[2:-1])
    assert any(re.fullmatch(r"training [0-9]+/10000, loss .*, explained variance .* left", line) for line in shown)
    assert shown[-1] == ""

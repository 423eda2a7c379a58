"""Forked processes are processes of their own, as those that start anew."""

import os
import signal
import sys

import pytest

from tests.processes import USUAL, ended, environment, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes start anew here")
SAYS = (
    "import os, sys\n"
    "print(sys.argv, os.getcwd(), os.getppid(), os.environ['COLUMNS'], len(sys.stdin.read()))\n"
    "print('sae_jax.commands.sweep' in sys.modules, file=sys.stderr)\n"
    "sys.exit(3)"
)


@pytest.mark.parametrize("anew", [False, True], ids=["forked", "anew"])
def test_a_process_has_words_variables_a_folder_streams_and_an_end_of_its_own(anew, tmp_path):
    process = start(["-c", SAYS, "one", "two"], tmp_path, USUAL | {"COLUMNS": "77"}, anew)
    said = f"['-c', 'one', 'two'] {tmp_path} {os.getpid()} 77 0\n"
    assert ended(process) == (said, f"{not anew}\n", 3)


def test_who_has_variables_that_are_read_in_imports_starts_anew(tmp_path, monkeypatch):
    assert ended(start(["-c", SAYS], tmp_path, environment(JAX_ENABLE_X64="True")))[1] == "False\n"
    monkeypatch.setenv("JAX_ENABLE_X64", "True")
    assert ended(start(["-c", SAYS], tmp_path))[1] == "False\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("anew", [False, True], ids=["forked", "anew"])
def test_a_signal_ends_it(number, anew, tmp_path):
    process = start(["-c", "import time; print('ready', flush=True); time.sleep(60)"], tmp_path, anew=anew)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process)[2] == -number


def test_nothing_is_computed_before_it_forks(tmp_path):
    code = "from jax._src import xla_bridge; print(len(xla_bridge._backends))"
    assert ended(start(["-c", code], tmp_path)) == ("0\n", "", 0)

"""Processes of Python that start at once: they are forked from one that has imported what every command imports.

They are children of the test's process like any other, with words, variables, a folder and streams of their own. What
is tested of imports, or of what is read in them, starts anew.
"""

import atexit
import ctypes
import functools
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.conftest import CACHE

ROOT = Path(__file__).resolve().parents[1]
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux.
ONE_AT_A_TIME = threading.Lock()
# Read after the imports. Whoever has another value of any other variable starts anew.
LATE = {"COLUMNS", "XDG_CACHE_HOME", "PYTEST_CURRENT_TEST"}


def environment(**variables):
    """Variables of a process that runs this source anywhere."""
    ours = {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "XDG_CACHE_HOME": CACHE}
    return os.environ | ours | variables


USUAL = environment()


def start(words, folder, variables=None, anew=False):
    """A process of Python with such words (-m MODULE or -c CODE first), whose output and complaints are read.

    Args:
        variables: those of `environment`, or others.
        anew: import everything in the process, as where the variables are others than usual.
    """
    variables = environment() if variables is None else variables
    forks = sys.platform == "linux" and not anew and _early(variables) == _early(USUAL)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return (Forked if forks else subprocess.Popen)([sys.executable, *words], cwd=folder, env=variables, **streams)


def ended(process, seconds=240):
    """(what it printed, what it complained about, exit code) of a process that may not hang."""
    with process:
        try:
            return (*process.communicate(timeout=seconds), process.returncode)
        finally:
            process.kill()


def _early(variables):
    return {name: value for name, value in variables.items() if name not in LATE}


class Forked(subprocess.Popen):
    """A process that the server forks."""

    def _execute_child(self, *arguments):
        call = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments
        streams = (call["p2cread"], call["c2pwrite"], call["errwrite"])
        given = {number: number if stream < 0 else stream for number, stream in enumerate(streams)}
        given |= {descriptor: descriptor for descriptor in call["pass_fds"]}
        message = json.dumps([call["args"][1:], os.fspath(call["cwd"]), call["env"], [*given]])
        with ONE_AT_A_TIME:
            channel = server(os.getpid())
            socket.send_fds(channel, [message.encode()], [*given.values()])
            self.pid = int(channel.recv(64))
            assert channel.recv(64) == b"done"
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(call[end] for end in ends))


@functools.cache
def server(_):
    """The way to the server, which is started for the first process that is forked."""
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
        # Pipes, as the streams of those that it forks will be.
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, cwd=ROOT, env=USUAL, pass_fds=[theirs.fileno()], **streams)

    def end():
        ours.close()
        process.communicate()

    atexit.register(end)
    return ours

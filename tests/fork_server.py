"""A process that has imported what every command imports, and forks for each that is asked for.

`tests.processes` starts it. It imports nothing of the tests, and computes nothing by JAX, which would not
survive a fork.
"""

import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time

IMPORTED = ("sae_jax.commands.sweep", "sae_jax.commands.session", "orbax.checkpoint", "h5netcdf", "skimage.io")
LONGEST_MESSAGE = 2**17
MOST_DESCRIPTORS = 16
ABOVE_ALL = 1000


def serve(channel: socket.socket) -> None:
    """Fork for every message until there is nobody to send one; the forked process runs what it was sent, and ends."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, MOST_DESCRIPTORS)
        if not message:
            return
        if not (between := os.fork()):
            parent = os.getpid()
            if process := os.fork():
                channel.send(str(process).encode())
                os._exit(0)
            channel.close()
            while os.getppid() == parent:
                time.sleep(0.001)
            become(*json.loads(message), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        # An orphan now, and so a child of whoever takes those in.
        os.waitpid(between, 0)
        channel.send(b"done")


def become(words: list[str], folder: str, environment: dict[str, str], numbers: list[int], given: list[int]) -> None:
    """Run words as Python's own, in a folder, with variables and with descriptors under their numbers."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ABOVE_ALL) for descriptor in given]
    for descriptor in given:
        os.close(descriptor)
    for descriptor, number in zip(moved, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind, what, *rest = words
    end_at_once() if kind == "-m" else signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if kind == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = "", [kind, *rest]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    # An interruption of a process that has just been forked waits until it is ready for one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    number = int(sys.argv[1])
    # As while the scripts are looked for.
    sys.argv[:1] = ["-m"]
    importlib.import_module("experiments")
    for name in IMPORTED:
        importlib.import_module(name)
    from sae_jax.commands.signals import end_at_once
    from sae_jax.data import DataConfig, patches

    # Most processes draw patches of the photographs, which are read and whitened once.
    patches.read("", DataConfig(dataset="patches"))

    # Otherwise every process copies, as it ends, all that the libraries have made.
    gc.freeze()
    with socket.socket(fileno=number) as channel:
        serve(channel)

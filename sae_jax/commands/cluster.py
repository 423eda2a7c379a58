"""Joining the other processes of a run, and ending with them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from jax.errors import JaxRuntimeError

from sae_jax.settings import NON_NEGATIVE, TEXT, Range, UserError, check, flag, setting, settings_of
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.devices import reserve_cpu_devices
from sae_jax.sweeps.recovery import Interrupted

LOST = "error: the processes of this run have lost each other: one of them, or its machine, has ended; start them again"
PEERS = re.compile(r"gloo|nccl|coordination|heartbeat|socket closed|connection (closed|reset|refused)|peer", re.I)
# JAX's runtime ends a process that has lost the others, with a page about its insides. A process of its own reads what
# the runtime writes and prints one line; Python's output does not pass through it.
MARK = b"the others are lost\n"
READER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
lost, mark = sys.argv[1:]
silent = reported = False
for line in sys.stdin.buffer:
    runtime = re.match(rb"[WEF][0-9]{4} .*(coordination|preemption|client[.]h)", line)
    if line == mark.encode() or runtime and line.startswith(b"F"):
        if not reported:
            sys.stderr.write(lost)
        reported = silent = True
    elif runtime:
        silent = True
    elif not silent and not line.startswith(b"[Gloo]"):
        sys.stderr.buffer.write(line)
    sys.stderr.flush()
"""


@dataclasses.dataclass(frozen=True)
class Launch:
    """How many processes run together, and which of them this one is."""

    distributed: bool = setting(False, Range(), "train together with other processes; the first one prints and writes")
    coordinator: str = setting(
        "", TEXT, "HOST:PORT of the first process; empty is found from SLURM, Kubernetes, Open MPI or a TPU pod"
    )
    processes: int = setting(0, NON_NEGATIVE, "number of processes; 0 is found likewise")
    process_id: int = setting(-1, Range(low=-1), "number of this process, from 0; -1 is found likewise")

    def __post_init__(self) -> None:
        if self.coordinator and not re.fullmatch(r".+:[0-9]+", self.coordinator):
            raise UserError(
                f"coordinator must be HOST:PORT: got {self.coordinator}; add the port, as in {self.coordinator}:7777"
            )
        if self.processes and self.process_id >= self.processes:
            raise UserError(
                f"process_id must be below processes: got {self.process_id} of {self.processes}; "
                f"number them 0 to {self.processes - 1}"
            )


def launch(argv: Sequence[str], cpu_devices: Callable[[], int] = lambda: 0) -> None:
    """Join the other processes where a command line asks for it, before anything else of it can be refused.

    Args:
        argv: the words of the command line.
        cpu_devices: how many devices it asks for, which are made when processes join; 0 is one per CPU core.

    Raises:
        UserError: a flag of `Launch` breaks a rule, or the processes cannot find each other.
    """
    given = {name: _words(argv, flag(name)) for name in settings_of(Launch)}
    values: dict[str, Any] = {}
    for name, words in given.items():
        if words is not None:
            values[name] = check(settings_of(Launch)[name], " ".join(words) or "true")
    requested = Launch(**values)
    if requested.distributed:
        _filter_runtime_messages()
        reserve_cpu_devices(cpu_devices())
        distributed.start(requested.coordinator, requested.processes, requested.process_id)
    elif len(values) > ("distributed" in values):
        others = ", ".join(flag(name) for name in values if name != "distributed")
        raise UserError(f"{others} must stand beside --distributed: got no such flag, or False; add it")


def end(error: BaseException, code: int, line: str = "") -> None:
    """End the process; one that has joined others ends in a way that they notice, or that they all have agreed on.

    Args:
        error: why it ends.
        code: exit code.
        line: printed to stderr; "" is the error's traceback, or that others were lost.
    """
    if not distributed.started():
        if not line:
            raise error
        _print_error(line)
        sys.exit(code)
    if isinstance(error, distributed.Refused | Interrupted):  # All of them know, and end in step.
        if distributed.leads():
            _print_error(line)
        sys.exit(code)
    if line:
        _print_error(line)
    elif isinstance(error, JaxRuntimeError | ValueError) and PEERS.search(str(error)):
        # The runtime may be ending this process at the same moment: the reader says it once.
        os.write(2, MARK)
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # The usual end waits for the other processes, which may be waiting for this one.
    os._exit(code)


def _print_error(line: str) -> None:
    with contextlib.suppress(OSError):  # Nobody is there to read it any longer.
        print(line, file=sys.stderr)


def _words(argv: Sequence[str], name: str) -> list[str] | None:
    """The words after a flag, or after its =; None where it is not there."""
    for place, word in enumerate(argv):
        head, equals, value = word.partition("=")
        if head.replace("_", "-") == name:
            rest = [value] if equals else []
            for following in argv[place + 1 :]:
                if following.startswith("--"):
                    break
                rest.append(following)
            return rest
    return None


def _filter_runtime_messages() -> None:
    """Let everything that is not Python write to the reader, and Python where it wrote before."""
    out, err = os.dup(1), os.dup(2)
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, "-I", "-c", READER, LOST + "\n", MARK.decode()], stdin=reading, stdout=err, stderr=err
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    sys.stdout = os.fdopen(out, "w", buffering=1)
    sys.stderr = os.fdopen(err, "w", buffering=1)

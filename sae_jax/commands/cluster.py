"""Joining the other processes of a run, and ending with them."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.errors import JaxRuntimeError

from sae_jax.settings import NON_NEGATIVE, TEXT, Range, UserError, check, flag, received, setting, settings_of
from sae_jax.storage.atomic import reason_of
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.devices import reserve_cpu_devices
from sae_jax.sweeps.processes import KUBERNETES
from sae_jax.sweeps.recovery import Interrupted
from sae_jax.sweeps.streams import unfailing

LAST_PORT = 65535
# What says that there is no such name; some systems have the second one.
UNKNOWN_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
# Processes that are started at once do not all come at once.
SILENT_SECONDS = 10
LOST = "error: the processes of this run have lost each other: one of them, or its machine, has ended; start them again"
PEERS = re.compile(r"gloo|nccl|coordination|heartbeat|socket closed|connection (closed|reset|refused)|peer", re.I)
# What libc may call must stay where it is.
_HANDLERS: list[Any] = []
# JAX's runtime ends a process that has lost the others, with a page about its insides. A process of its own reads what
# the runtime writes and prints one line; Python's output does not pass through it.
MARK = b"the others are lost\n"
# Gloo greets every peer, and its threads write into each other's lines: a line may begin at any piece of a greeting,
# and ends of lines stand alone.
READER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
greeting = re.compile(
    rb"(?=.*\\S)(\\[Gloo\\]|Rank|[0-9]|is connected to|connected|peer ranks[.]?|Expected number of|is :| )+\\n?"
)
lost, mark = sys.argv[1:]
silent = reported = greeted = False
for line in sys.stdin.buffer:
    runtime = re.match(rb"[WEF][0-9]{4} .*(coordination|preemption|client[.]h)", line)
    if line == mark.encode() or runtime and line.startswith(b"F"):
        if not reported:
            sys.stderr.write(lost)
        reported = silent = True
    elif runtime:
        silent = True
    elif not silent:
        greeted = bool(greeting.fullmatch(line)) or greeted and line == b"\\n"
        if not greeted:
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
        port = self.coordinator.rpartition(":")[2].lstrip("0")
        # Python reads no number of thousands of digits.
        if self.coordinator and not (port and len(port) <= len(str(LAST_PORT)) and int(port) <= LAST_PORT):
            raise UserError(
                f"coordinator must have a port in [1, {LAST_PORT}]: got {received(self.coordinator)}; "
                "choose another port"
            )
        if self.processes and self.process_id >= self.processes:
            raise UserError(
                f"process_id must be below processes: got {self.process_id} of {self.processes}; "
                f"number them 0 to {self.processes - 1}"
            )


def launch(argv: Sequence[str], cpu_devices: int = 0) -> None:
    """Join the other processes where a command line asks for it, before anything else of it can be refused.

    What is executed later, as plug-ins are, may compute: the number of CPU devices is fixed before.

    Args:
        argv: the words of the command line.
        cpu_devices: how many devices it asks for; 0 is one per CPU core.

    Raises:
        UserError: a flag of `Launch` breaks a rule, or the processes cannot find each other.
    """
    given = {name: words_after(argv, flag(name)) for name in settings_of(Launch)}
    values: dict[str, Any] = {}
    for name, words in given.items():
        if words is not None:
            values[name] = check(settings_of(Launch)[name], " ".join(words) or "true")
    requested = Launch(**values)
    reserve_cpu_devices(cpu_devices)
    if requested.distributed:
        _filter_runtime_messages()
        _end_without_core()
        _check_host(requested)
        _check_port(requested)
        with _meeting(requested) as met:
            distributed.start(requested.coordinator, requested.processes, requested.process_id, met)
    elif len(values) > ("distributed" in values):
        others = ", ".join(flag(name) for name in values if name != "distributed")
        raise UserError(f"{others} must stand beside --distributed: got no such flag, or False; add it")


def _check_host(requested: Launch) -> None:
    """Refuse the name of a machine that nobody knows: the runtime would look for it until it gives up the others."""
    if requested.coordinator and KUBERNETES not in os.environ:  # There, a name is known once its pod is there.
        host, _, port = requested.coordinator.rpartition(":")
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
        except (socket.gaierror, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno not in UNKNOWN_NAME:
                return  # Whoever looks names up may do so later.
            reason = error.strerror if isinstance(error, socket.gaierror) else "it is no name"
            raise UserError(
                f"coordinator must name a machine that is found here: got {requested.coordinator}: {reason}; correct "
                "the name, or give an address"
            ) from None


def _check_port(requested: Launch) -> None:
    """Refuse a port that another program has: the runtime would share it with some, and end without a word."""
    if requested.coordinator and requested.process_id == 0:
        dual = socket.has_dualstack_ipv6()
        port = int(requested.coordinator.rpartition(":")[2])
        try:
            family = socket.AF_INET6 if dual else socket.AF_INET
            socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
        except OSError as error:
            raise UserError(
                f"coordinator must have a port that is free here: got {requested.coordinator}: {reason_of(error)}; "
                "choose another port, the same for all processes"
            ) from None


@contextlib.contextmanager
def _meeting(requested: Launch) -> Iterator[Callable[[], None]]:
    """Say what is waited for until the function that is returned is called, and end the process if it never is.

    The runtime says nothing for minutes, and then ends the process with a page about its insides.
    """
    met = threading.Event()
    processes = f"all {requested.processes} processes" if requested.processes else "all processes"
    place = requested.coordinator or "the address of the first"

    def watch() -> None:
        if not met.wait(SILENT_SECONDS):
            print(f"waiting for {processes} of this run to meet at {place}", file=sys.stderr, flush=True)
            if not met.wait(distributed.MEETING_SECONDS - SILENT_SECONDS):
                rule = f"{processes} of this run must meet at {place} within {distributed.MEETING_SECONDS} s"
                print(
                    f"error: {rule}: got fewer; start them all, or correct --coordinator", file=sys.stderr, flush=True
                )
                os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield met.set
    finally:
        met.set()


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
        print(line, file=sys.stderr)
        sys.exit(code)
    if isinstance(error, distributed.Refused | Interrupted):  # All of them know, and end in step.
        if distributed.leads():
            print(line, file=sys.stderr)
        sys.exit(code)
    if line:
        print(line, file=sys.stderr)
    elif isinstance(error, JaxRuntimeError | ValueError) and PEERS.search(str(error)):
        # The runtime may be ending this process at the same moment: the reader says it once.
        os.write(2, MARK)
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # The usual end waits for the other processes, which may be waiting for this one.
    os._exit(code)


def devices_named(argv: Sequence[str]) -> int:
    """The devices that a command line asks for; 0 where it names none, or what is refused later."""
    word = " ".join(words_after(argv, flag("devices")) or ())
    return int(word) if re.fullmatch(r"[0-9]{1,6}", word) else 0


def words_after(argv: Sequence[str], name: str) -> list[str] | None:
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


def _end_without_core() -> None:
    """Let the runtime's abort, which has been said in a line, end the process with the exit code of a failure.

    Python's own handlers run between two of its instructions, which an abort does not wait for.
    """
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _HANDLERS.append(kind(lambda number: os._exit(1)))
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, kind], ctypes.c_void_p
    libc.signal(signal.SIGABRT, _HANDLERS[-1])


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
    sys.stdout = unfailing(os.fdopen(out, "w", buffering=1, encoding=sys.stdout.encoding))
    sys.stderr = unfailing(os.fdopen(err, "w", buffering=1, encoding=sys.stderr.encoding))

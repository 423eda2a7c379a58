"""A process whose calls to the file system pass through this one, which lets them be done, fail, or be its last.

Linux hands a call that a filter names to whoever holds the filter's listener (seccomp_unotify(2)): nothing is
installed, nobody needs to be root, and calls of libraries in C++ are seen as those of Python are.
"""

from __future__ import annotations

import array
import ctypes
import dataclasses
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

# Number of a call -> name, the place of its path or descriptor among its arguments, and of the descriptor of the folder
# that a path begins in.
WRITES = {
    1: ("write", 0, None),
    18: ("pwrite64", 0, None),
    20: ("writev", 0, None),
    296: ("pwritev", 0, None),
    328: ("pwritev2", 0, None),
    74: ("fsync", 0, None),
    75: ("fdatasync", 0, None),
    77: ("ftruncate", 0, None),
    285: ("fallocate", 0, None),
    326: ("copy_file_range", 2, None),
    40: ("sendfile", 0, None),
}
NAMES = {
    2: ("open", 0, None),
    257: ("openat", 1, 0),
    85: ("creat", 0, None),
    76: ("truncate", 0, None),
    82: ("rename", 0, None),
    264: ("renameat", 1, 0),
    316: ("renameat2", 1, 0),
    83: ("mkdir", 0, None),
    258: ("mkdirat", 1, 0),
    84: ("rmdir", 0, None),
    87: ("unlink", 0, None),
    263: ("unlinkat", 1, 0),
    86: ("link", 1, None),
    265: ("linkat", 3, 2),
    88: ("symlink", 1, None),
    266: ("symlinkat", 2, 1),
}
# Calls that only read unless one of these is among their flags, and the place of the flags.
OPENS = {2: 1, 257: 2}
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
X86_64 = 0xC000003E
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, ANSWER = 0xC0502100, 0xC0182101
GO_ON = 1
NO_NEW_PRIVILEGES, SECCOMP, SET_FILTER, NEW_LISTENER = 38, 317, 1, 8
AT_FDCWD = -100
LONGEST_PATH = 4096


def unavailable() -> str:
    """Why calls cannot be handed on here; "" where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "calls are handed on by Linux on x86-64 alone"
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or "user_notif" not in actions.read_text().split():
        return "this kernel hands no calls on"
    return ""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a process that would change a file: its name and the file's path."""

    name: str
    path: str


def listen() -> int:
    """Hand this process's calls on, and those of all it starts; the descriptor that they are read from."""

    def line(code: int, value: int, met: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, met, otherwise, value)

    program = [line(LOAD, 4), line(EQUAL, X86_64, 1, 0), line(RETURN, ALLOW), line(LOAD, 0)]
    for number, place in OPENS.items():
        flags = [line(LOAD, 16 + 8 * place), line(ANY_BIT, CHANGING, 0, 1), line(RETURN, NOTIFY), line(RETURN, ALLOW)]
        program += [line(EQUAL, number, 0, len(flags)), *flags]
    for number in (set(WRITES) | set(NAMES)) - set(OPENS):
        program += [line(EQUAL, number, 0, 1), line(RETURN, NOTIFY)]
    program.append(line(RETURN, ALLOW))
    lines = ctypes.create_string_buffer(b"".join(program))
    table = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(lines)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    descriptor = libc.syscall(SECCOMP, SET_FILTER, NEW_LISTENER, table)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


# Runs a module as `python -m` does, after the listener was sent to whoever started it. The message is sent by a call
# that no filter names.
CHILD = """
import os, runpy, socket, sys
sys.path.insert(0, sys.argv.pop(1))
from tests.faults.system_calls import listen
with socket.socket(fileno=int(sys.argv.pop(1))) as channel:
    listener = listen()
    socket.send_fds(channel, [b"."], [listener])
os.close(listener)
module = sys.argv.pop(1)
sys.argv[0] = module
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run(
    words: Sequence[str],
    folder: Path,
    at: Callable[[Call], int | str],
    root: Path,
    environment: dict[str, str],
    timeout: float = 600,
    popen: type[subprocess.Popen[str]] = subprocess.Popen,
) -> tuple[int, str, str]:
    """Run a module in a process of which every change to a folder's files is asked for.

    Args:
        words: the module and its arguments.
        folder: calls that concern no file in it are done.
        at: called before each; returns 0 to let it be done, an error number for it to fail with, or "kill".
        root: where modules are imported from.
        environment: its variables.
        timeout: seconds after which it is killed.
        popen: what starts it.

    Returns:
        its exit code, stdout and stderr.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = popen(
            [sys.executable, "-c", CHILD, str(root), str(theirs.fileno()), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[theirs.fileno()],
            cwd=folder,
            env=environment,
        )
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    listener = descriptors[0]
    answering = threading.Thread(target=_answer, args=(listener, process, os.path.realpath(folder) + os.sep, at))
    answering.start()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"\nkilled after {timeout} s"
    answering.join()
    os.close(listener)
    return process.returncode, out, err


def _answer(listener: int, process: subprocess.Popen[str], folder: str, at: Callable[[Call], int | str]) -> None:
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        events = poller.poll()
        if not any(event & select.POLLIN for _, event in events):
            return  # Every process that the filter holds for has ended.
        message = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, message)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # The caller was killed, or its call was interrupted.
                continue
            raise
        identifier, thread, _, number = struct.unpack_from("QIIi", message)
        arguments = struct.unpack_from("6Q", message, 32)
        call = _call(thread, number, arguments)
        answer = at(call) if call.path.startswith(folder) else 0
        if answer == "kill":
            process.send_signal(signal.SIGKILL)
            continue
        reply = struct.pack("QqiI", identifier, 0, -int(answer), 0 if answer else GO_ON)
        try:
            fcntl.ioctl(listener, ANSWER, bytearray(reply))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _call(thread: int, number: int, arguments: Sequence[int]) -> Call:
    name, place, beside = (WRITES | NAMES)[number]
    try:
        if number in WRITES:
            return Call(name, os.readlink(f"/proc/{thread}/fd/{arguments[place]}"))
        path = _text(thread, arguments[place])
        if not path.startswith("/"):
            start = AT_FDCWD if beside is None else ctypes.c_int(arguments[beside]).value
            inside = f"/proc/{thread}/cwd" if start == AT_FDCWD else f"/proc/{thread}/fd/{start}"
            path = os.path.join(os.readlink(inside), path)
        return Call(name, os.path.normpath(path))
    except OSError:  # A descriptor that is none, or a process that has ended.
        return Call(name, "")


def _text(thread: int, address: int) -> str:
    """A string in the memory of a process; it may end just before a page that is not there."""
    content = array.array("B")
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        while 0 not in content and len(content) < LONGEST_PATH:
            memory.seek(address + len(content))
            content.frombytes(memory.read(4096 - (address + len(content)) % 4096))
    return os.fsdecode(content.tobytes().partition(b"\0")[0])

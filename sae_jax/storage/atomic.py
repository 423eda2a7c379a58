"""Files that appear whole or not at all, and the one line that a failing file system ends a command with."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from sae_jax.settings import UserError, check_type, received

RUN_FOLDER = "the run's folder"
# The names of `temporary_path`.
PARTIAL = ".*.partial"
# Of a name that is written, what a temporary one begins with: that may be no longer than any.
SHOWN = 40
# After so long, s, what a process of another machine was writing is taken for left behind.
LEFT_BEHIND = 86_400


def _machine() -> str:
    """Digits that tell machines and containers apart which share a disk: a process is looked for on its own."""
    space = ""
    with contextlib.suppress(OSError):  # Other systems have no such files.
        space = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()) % 10**5:05d}"


MACHINE = _machine()
WRITER = re.compile(r"\..*\.(?P<machine>[0-9]{5})-(?P<process>[0-9]{1,9})-[0-9]+\.partial", re.DOTALL)
# Of this process, the names under which something is being written.
_in_use: set[str] = set()
MAKE_ROOM, MORE_FILES = "make room and repeat the command", "raise ulimit -n and repeat the command"
MORE_MEMORY = "free memory, or raise ulimit -v, and repeat the command"
# What helps whatever was read or written.
FIXES = {
    **{errno.ENOSPC: MAKE_ROOM, errno.EDQUOT: MAKE_ROOM, errno.EMFILE: MORE_FILES, errno.ENFILE: MORE_FILES},
    errno.ENOMEM: MORE_MEMORY,
}
PERMISSIONS, IN_THE_WAY = "change its permissions and repeat the command", "rename what is there"
CHECK_DISK = "check its disk and repeat the command"
DENIED = {errno.EACCES: PERMISSIONS, errno.EPERM: PERMISSIONS}
# What helps where no flag names another place; of other errors, a look at the disk.
FIXES_IN_PLACE = {
    **DENIED,
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, 0), IN_THE_WAY),
    errno.EROFS: "mount its disk writable and repeat the command",
    errno.ENOENT: "leave it in its place and repeat the command",
    errno.ENAMETOOLONG: "shorten its name",
    errno.EFBIG: "raise ulimit -f and repeat the command",
}
FIXES_UNREAD = {**FIXES, **DENIED, errno.EIO: CHECK_DISK}


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk.

    Raises:
        OSError: the file system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_path(name: str, value: Any, rule: str, fix: str) -> Path:
    """A path that somebody passed, as text or as an object that stands for one.

    Raises:
        UserError: it is none, or no file can have that name.
    """
    check_type(name, value, (str, os.PathLike), rule, fix)
    path = os.fspath(value)
    try:
        named = isinstance(path, str) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # A command line's bytes of another encoding have a way back, halves of a letter none.
        named = False
    if not named:
        raise UserError(f"{name} must be {rule}, in text that can name a file: got {received(path)}; {fix}")
    return Path(path)


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: a device or a pipe would be waited for, and replaced it would be lost.

    Raises:
        OSError: something else stands at the path, or where a link there leads; nothing is in order.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError("it is no regular file")


def read_file(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it is none, or the file system refuses.
    """
    check_regular(path)
    return path.read_bytes()


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """A name beside a file or a folder under which its next content is written: no other thread or process has it.

    What stands there at the end is removed. So is, first, what a killed process has left beside it, of another machine
    after a day.
    """
    shown = path.name[:SHOWN]
    # Nobody else writes into a folder that has such a name itself, and many files may lie there.
    if not any(WRITER.fullmatch(parent.name) for parent in path.parents):
        name = re.compile(rf"\.{re.escape(shown)}\.(?P<machine>[0-9]{{5}})-[0-9]+-[0-9]+\.partial")
        with contextlib.suppress(OSError):
            for writer in filter(None, map(name.fullmatch, os.listdir(path.parent))):
                left = path.with_name(writer[0])
                if writer["machine"] == MACHINE or time.time() - left.stat().st_mtime > LEFT_BEHIND:
                    _remove_unwritten(left)
    temporary = path.with_name(f".{shown}.{MACHINE}-{os.getpid()}-{secrets.randbelow(10**6):06d}.partial")
    _in_use.add(temporary.name)
    try:
        yield temporary
    finally:
        remove_tree(temporary)
        _in_use.discard(temporary.name)


def remove_partial(folder: Path) -> None:
    """Remove what was being written in a folder, but for what a process of this machine is still writing."""
    for path in [*folder.rglob(PARTIAL)]:
        _remove_unwritten(path)


def _remove_unwritten(path: Path) -> None:
    writer = WRITER.fullmatch(path.name)
    if writer and writer["machine"] == MACHINE:
        number = int(writer["process"])
        if path.name in _in_use if number == os.getpid() else psutil.pid_exists(number):
            return
    remove_tree(path)


def write_file(path: Path, content: bytes | Callable[[Path], Any]) -> None:
    """Write a file that appears in one move once it is on the disk: whole, or as it was before.

    Args:
        path: replaced where it exists.
        content: its bytes, or a function that writes them to the path that it is given.

    Raises:
        OSError: the file system refuses, or something else than a file has this name; nothing is left under the
            temporary name.
    """
    check_regular(path)
    with temporary_path(path) as temporary:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)


def move(path: Path, target: Path) -> None:
    """Give a folder or a file that is complete its name, in one move that is on the disk.

    Raises:
        OSError: the file system refuses.
    """
    os.replace(path, target)
    sync(target.parent)


def remove_tree(path: Path, strict: bool = False) -> None:
    """Remove a folder and all in it, or whatever else stands at its name; what is absent is passed over.

    Where a link leads stays as it is. A pipe would be waited for if it were opened as a folder.

    Args:
        path: what is removed.
        strict: whether what cannot be removed is an error, and does not stay without a word.

    Raises:
        OSError: the file system refuses, and this is strict.
    """
    with contextlib.suppress(*() if strict else (OSError,)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=not strict)
        else:
            path.unlink(missing_ok=True)


def unwritable(path: Path, reason: Exception | str, name: str = RUN_FOLDER, fix: str = "") -> UserError:
    """The error for a file or a folder that cannot be written to.

    Args:
        path: the file or the folder.
        reason: what the file system raised, or why in words.
        name: what the user calls the path: a flag, or the run's folder.
        fix: what to do instead, such as to give another value to the flag; "" is what mends the place itself. A full
            disk and too many open files have fixes of their own.
    """
    number = _number(reason)
    fix = FIXES.get(number) or fix or FIXES_IN_PLACE.get(number, CHECK_DISK)
    return UserError(f"{name} must be writable: got {path}: {reason_of(reason)}; {fix}")


def mend_unread(error: Exception, damaged: str) -> str:
    """What to do about a file that cannot be read.

    Args:
        error: what reading it raised.
        damaged: what to do where its content is at fault, and not this process or its rights.
    """
    return FIXES_UNREAD.get(_number(error), damaged)


def check_reachable(path: Path, name: str) -> None:
    """Refuse a path that this user may not look at: it would be taken for one that is absent.

    Raises:
        UserError: a folder on the way is closed to the user; `name` is what the user calls the path.
    """
    try:
        os.stat(path)
    except PermissionError as error:
        raise UserError(f"{name} must be readable: got {path.parent}: {reason_of(error)}; {PERMISSIONS}") from None
    except OSError:  # It is absent.
        return


def _number(reason: Exception | str) -> int:
    """The system's number of an error; 0 of what has none."""
    if isinstance(reason, MemoryError):
        return errno.ENOMEM
    return (isinstance(reason, OSError) and reason.errno) or 0


def user_cache() -> Path:
    """The folder of what is kept for a user and can be made again: $XDG_CACHE_HOME, if it is a whole path, or ~/.cache.

    Raises:
        RuntimeError: the user has no home folder, as in a container of an unknown user.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "sae_jax"


def reason_of(error: Exception | str) -> str:
    """Why something failed, in one line: the system's own words where it gave an error number."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # HDF5 says more than a line beside the number.
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_expanded(path: Path, name: str) -> None:
    """Refuse to write to a path that a shell did not expand: to remove a folder ~ is to remove the home.

    Raises:
        UserError: it begins with ~; `name` is what the user calls it.
    """
    if str(path).startswith("~"):
        raise UserError(
            f"{name} must not begin with ~, which only a shell expands, of users that it knows: got {path}; "
            "write the whole path"
        )


@contextlib.contextmanager
def writing(path: Path, name: str = RUN_FOLDER, fix: str = "") -> Iterator[None]:
    """Turn the OSError that a body raises into the line for the user; arguments are those of `unwritable`.

    Raises:
        UserError: the body raised an OSError, or the path is one that `check_expanded` refuses.
    """
    check_expanded(path, name)
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, name, fix) from None

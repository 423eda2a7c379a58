"""Files that appear whole or not at all, and the line that a failing file system ends a command with."""

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from sae_jax import UserError
from sae_jax.storage.atomic import (
    MACHINE,
    PARTIAL,
    as_path,
    read_file,
    reason_of,
    remove_partial,
    remove_tree,
    temporary_path,
    unwritable,
    write_file,
    writing,
)


@pytest.mark.parametrize("content", [b"new", lambda path: path.write_bytes(b"new")], ids=["bytes", "a writer"])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(content, tmp_path):
    path = tmp_path / "file"
    for _ in range(2):
        write_file(path, content)
        assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
        path.write_bytes(b"old")


@pytest.mark.parametrize("failing", ["os.replace", "os.fsync"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_write_that_fails_leaves_what_was_there(failing, exists, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"old")
    monkeypatch.setattr(failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == ({"file": b"old"} if exists else {})


def test_a_writer_that_fails_halfway_leaves_what_was_there(tmp_path):
    def half(path):
        path.write_bytes(b"ne")
        raise KeyboardInterrupt

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", half)
    assert (tmp_path / "file").read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (calls.append(os.readlink(f"/proc/self/fd/{number}")), sync(number))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_file(tmp_path / "file", b"new")
    assert calls[1:] == ["replace", str(tmp_path)] and Path(calls[0]).match(str(tmp_path / PARTIAL))


def test_links_are_replaced_and_not_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("file", f".file.{MACHINE}-{os.getpid()}-000000.partial"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink() and (tmp_path / "file").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["file", "precious"]


def test_of_two_that_write_a_file_at_once_each_gives_it_its_content_whole(tmp_path):
    path, published = tmp_path / "file", []

    def first(temporary):
        with temporary.open("wb") as stream:
            stream.write(b"fir")
            write_file(path, b"second")
            published.append(path.read_bytes())
            stream.write(b"st")

    write_file(path, first)
    assert [*published, path.read_bytes()] == [b"second", b"first"] and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "\u00fc" * 127, "\u6587" * 85], ids=["ascii", "two bytes", "three"])
def test_a_file_may_have_a_name_as_long_as_the_system_takes(name, tmp_path):
    write_file(tmp_path / name, b"new")
    assert os.listdir(tmp_path) == [name]


def test_what_another_machine_was_writing_is_removed_after_a_day(tmp_path):
    left = tmp_path / f".file.{(int(MACHINE) + 1) % 10**5:05d}-1-000000.partial"
    left.mkdir()
    write_file(tmp_path / "file", b"new")
    assert left.exists()
    os.utime(left, (0, time.time() - 100_000))
    write_file(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_processes_have_left_is_removed_and_what_is_being_written_stays(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        pass
    other = f"{(int(MACHINE) + 1) % 10**5:05d}"
    dead, own, living, elsewhere = (
        tmp_path / f".file.{machine}-{number}-000000.partial"
        for machine, number in [
            (MACHINE, ended.pid),
            (MACHINE, os.getpid()),
            (MACHINE, os.getppid()),
            (other, ended.pid),
        ]
    )
    for path in (dead, own, living, elsewhere):
        path.touch()
    write_file(tmp_path / "file", b"new")
    assert set(tmp_path.iterdir()) == {tmp_path / "file", living, elsewhere}
    dead.mkdir()
    with temporary_path(tmp_path / "other") as written:
        written.touch()
        remove_partial(tmp_path)
        assert set(tmp_path.iterdir()) == {tmp_path / "file", living, written}
    assert not written.exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe", "link to a device"])
def test_what_is_no_file_is_neither_replaced_nor_read(kind, tmp_path):
    path = tmp_path / "file"
    if "device" in kind and not os.path.exists("/dev/zero"):
        pytest.skip("this machine has no such device")
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path = tmp_path / "pipe" if kind == "pipe" else path
        if kind != "pipe":
            path.symlink_to(tmp_path / "pipe")
    before = path.lstat()
    for attempt in (lambda: write_file(path, b"new"), lambda: read_file(path)):
        with pytest.raises(OSError, match=r"no regular file|Is a directory"):
            attempt()
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ["nothing", "folder", "file", "pipe", "link", "dangling link"])
def test_a_tree_is_removed_or_whatever_stands_in_its_place(kind, strict, tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_bytes(b"precious")
    path = tmp_path / "tree"
    if kind == "folder":
        (path / "in" / "it").mkdir(parents=True)
        (path / "link").symlink_to(tmp_path / "others")
        os.mkfifo(path / "in" / "pipe")
    elif kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to(tmp_path / ("others" if kind == "link" else "nowhere"))
    remove_tree(path, strict)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["file", "others"]


def test_a_tree_that_cannot_be_removed_is_an_error_where_it_is_asked_for(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("os.rmdir", "os.unlink"):
        monkeypatch.setattr(name, refuses)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file"):
        remove_tree(path)
        with pytest.raises(PermissionError):
            remove_tree(path, strict=True)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (OSError(errno.EACCES, "x"), "the run's folder must be writable: got a: Permission denied; change its"),
        (OSError(errno.EROFS, "x"), "got a: Read-only file system; mount its disk writable"),
        (OSError(errno.EIO, "x"), "got a: Input/output error; check its disk"),
        (OSError(errno.ENAMETOOLONG, "x"), "got a: File name too long; shorten its name"),
        (OSError(errno.ENOENT, "x"), "got a: No such file or directory; leave it in its place"),
        (OSError(errno.EISDIR, "x"), "got a: Is a directory; rename what is there"),
        (
            OSError(errno.ENOSPC, "HDF5 says\nmuch more"),
            "got a: No space left on device; make room and repeat the command",
        ),
        (OSError(errno.EDQUOT, "x"), "got a: Disk quota exceeded; make room and repeat the command"),
        (OSError(errno.EMFILE, "x"), "got a: Too many open files; raise ulimit -n and repeat the command"),
        (OSError("without a number\nand more"), "got a: without a number; rename"),
        ("it is a link", "got a: it is a link; rename"),
    ],
)
def test_the_line_says_the_systems_reason_and_what_to_do(reason, line, tmp_path):
    assert line in str(unwritable("a", reason))
    if isinstance(reason, OSError):
        with pytest.raises(UserError) as refused, writing("a"):
            raise reason
        assert line in str(refused.value)


def test_the_line_names_a_flag_and_its_own_fix():
    refused = pytest.raises(UserError, match=r"^--out must be writable: got a: Is a directory; choose another$")
    with refused, writing("a", "--out", "choose another"):
        raise IsADirectoryError(errno.EISDIR, "x")
    with pytest.raises(ValueError, match="another error"), writing("a"):
        raise ValueError("another error")


@pytest.mark.parametrize("path", ["a\0b", Path("a\0b"), "a\ud800", Path("\udfff"), b"a", None, 7, ["a"]])
def test_what_no_file_can_be_called_is_refused_in_a_line(path):
    with pytest.raises(UserError, match=r"^folder must be a path.*: got .*; use runs/NAME$") as caught:
        as_path("folder", path, "a path", "use runs/NAME")
    assert str(caught.value).isprintable()
    for name in ("a/b", os.fsdecode(b"a\xff"), "\u6771"):
        assert as_path("folder", name, "a path", "") == Path(name)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE])
def test_what_helps_wherever_something_is_written_comes_before_another_place(error):
    refused = pytest.raises(UserError, match=r"(make room|raise ulimit -n) and repeat the command$")
    with refused, writing("a", "--out", "choose another"):
        raise OSError(error, "x")


def test_an_error_without_words_is_called_by_its_name():
    assert reason_of(RecursionError()) == "RecursionError"


def test_a_disk_that_is_full_has_a_line_of_its_own(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no file systems for us")
    try:
        with pytest.raises(UserError, match=r": No space left on device; make room and repeat"), writing(tmp_path):
            write_file(tmp_path / "file", bytes(2**20))
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)

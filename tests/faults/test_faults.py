"""A part of the matrix of `python -m tests.faults`: calls all along a sweep, each of which fails or is the last one."""

import errno
import os
import subprocess
import sys

import pytest

from tests.faults.__main__ import markdown_table, summary, united
from tests.faults.matrix import COMMANDS, FAULTS, REMOVALS, Bench, Moment, Result, one_of_each
from tests.faults.system_calls import Call, run, unavailable
from tests.processes import ROOT

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())
PARTS = 8
WRITING = """
import os
from pathlib import Path
os.mkdir("folder")
Path("folder/file").write_text("text")
os.rename("folder/file", "file")
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(COMMANDS[0], tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("part", range(PARTS))
def test_a_sweep_whose_file_system_fails_says_so_in_a_line_and_is_repeated_to_the_same_bytes(bench, part):
    # First calls alone, but to states that are removed: how often one is saved depends on the time.
    certain = [one for one in one_of_each(bench.moments) if not (one.name in REMOVALS and "states/" in one.path)]
    moment = certain[part * len(certain) // PARTS]
    fault = list(FAULTS)[part % len(FAULTS)]
    result = bench.result(moment, fault)
    assert result.outcome in (("killed",) if fault == "kill" else ("carried on", "one line")), result


@pytest.fixture
def module(tmp_path):
    """A folder for a process, and where its module is."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "writing.py").write_text(WRITING)
    (tmp_path / "modules" / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "place").mkdir()
    return tmp_path / "place", tmp_path / "modules"


def test_calls_of_a_process_are_seen_in_order_with_their_files(module):
    place, modules = module
    calls = []
    assert run(["writing"], place, lambda call: calls.append(call) or 0, modules, dict(os.environ))[0] == 0
    inside = [Call(call.name, os.path.relpath(call.path, place)) for call in calls]
    names = [("mkdir", "folder"), ("openat", "folder/file"), ("write", "folder/file"), ("rename", "folder/file")]
    assert inside == [Call(*name) for name in names] and (place / "file").read_text() == "text"


@pytest.mark.parametrize("name", ["mkdir", "openat", "write", "rename"])
def test_a_call_fails_with_the_error_that_it_is_given(name, module):
    place, modules = module
    code, _, err = run(["writing"], place, lambda call: errno.ENOSPC * (call.name == name), modules, dict(os.environ))
    assert code == 1 and err.splitlines()[-1].startswith("OSError: [Errno 28] No space left on device")
    assert (place / "folder").exists() == (name != "mkdir")
    assert not (place / "file").exists()


def test_a_killed_process_has_not_made_the_call(module):
    place, modules = module
    killed = run(["writing"], place, lambda call: "kill" if call.name == "rename" else 0, modules, dict(os.environ))
    assert killed == (-9, "", "") and (place / "folder" / "file").read_text() == "text"


def test_counts_are_those_of_the_results():
    first, second = Moment("write", "a", 1), Moment("fsync", "a", 1)
    killed = [Result("sweep", first, "kill", "killed"), Result("sweep", second, "kill", "wrong", "files differ")]
    errors = [fault for fault in FAULTS if fault != "kill"]
    content = summary(killed + [Result("sweep", one, fault, "one line") for one in (first, second) for fault in errors])
    assert [one["why"] for one in content["wrong"]] == ["files differ"]
    row = "| `sweep` | 2 | 2 one line | 2 one line | 2 one line | 1 killed, 1 wrong |"
    assert markdown_table(content).splitlines()[-1] == row


def test_counts_of_a_command_are_put_beside_those_of_others_in_place_of_its_own():
    moment = Moment("write", "a", 1)
    wrong = Result("merge", moment, "kill", "wrong", "files differ")
    both = summary([wrong, Result("sweep", moment, "kill", "killed")])
    now = united(both, summary([Result("merge", moment, "kill", "killed")]))
    assert list(now["commands"]) == ["sweep", "merge"] and now["wrong"] == []
    assert now["commands"]["sweep"] == both["commands"]["sweep"] and now["commands"]["merge"]["kill"]["killed"] == 1


def test_help_names_every_command():
    done = subprocess.run([sys.executable, "-m", "tests.faults", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and all(command.name in done.stdout for command in COMMANDS)

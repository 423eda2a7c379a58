"""Real processes whose output is closed, full or read no longer: a training goes on to its end."""

import os
import subprocess
import sys

import pytest

from tests.conftest import CACHE

WORDS = ["--dataset", "digits", "--rho", ".05", "--beta", "1", "--d-hidden", "8", "--steps", "20", "--seeds", "2"]
WORDS += ["--figures", "False", "--report", "False"]
FILES = {"results.nc", "params.safetensors", "summary.csv", "log.txt"}


def shell(line, folder, **variables):
    """(exit code, stdout, stderr) of a line of the shell in which $python stands for the interpreter."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": CACHE, "python": sys.executable}
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("after", "printed"),
    [("| head -1", 1), (">&-", 0), (">/dev/full", 0), (">&- 2>&-", 0), ("2>/dev/full | head -1", 1)],
)
def test_a_training_goes_on_to_its_end_whatever_becomes_of_its_output(after, printed, tmp_path):
    if "/dev/full" in after and not os.path.exists("/dev/full"):
        pytest.skip("this machine has no device that is always full")
    code, out, complaint = shell(f"$python -m experiments.sweep {' '.join(WORDS)} --name run {after}", tmp_path)
    assert (code, complaint, out.count("\n")) == (0, "", printed)
    run = tmp_path / "runs" / "run"
    assert set(os.listdir(run)) > FILES and not (run / "unfinished").exists()
    assert "all done in" in (run / "log.txt").read_text()


def test_letters_that_an_encoding_lacks_are_written_as_their_numbers(tmp_path):
    line = f"$python -m experiments.sweep {' '.join(WORDS)} --name $'gr\\xc3\\xb6\\xc3\\x9fe'"
    code, out, complaint = shell(line, tmp_path, PYTHONIOENCODING="ascii")
    assert (code, complaint) == (0, "") and r"runs/gr\xf6\xdfe/results.nc" in out


def test_what_only_prints_fails_where_that_cannot_be_written(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this machine has no device that is always full")
    (tmp_path / "runs").mkdir()
    code, _, complaint = shell("$python -m experiments.runs >/dev/full", tmp_path)
    line = "error: what is printed must be writable: got stdout: No space left on device; make room and repeat the"
    assert code == 2 and complaint.startswith(line) and complaint.count("\n") == 1

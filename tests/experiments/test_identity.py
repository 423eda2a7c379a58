"""Reproductions are not run again where their report is of the same, and go on after they were interrupted."""

import errno
import json
import os
import signal
import time

import pytest
from matplotlib.figure import Figure

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import identity
from experiments.reproduce.checks import expectation
from experiments.reproduce.report import Report
from sae_jax.storage import record
from tests.processes import ended, start
from tests.test_rooms import ROOMS, ROOT, rooms_imported

AGAIN = "not run again"


@pytest.fixture
def all_of(tmp_path, monkeypatch):
    """Runs two reproductions by --all with more words; returns the names of those that ran."""
    ran = []

    class Counted:
        SOURCE = "nobody 1900"

        def __init__(self, name):
            self.name = name

        def run(self, options):
            ran.append(self.name)
            return Report([expectation("a number", "1", 1.0, 0, 2, why="w")], Figure())

    monkeypatch.setattr(reproduce, "NAMES", ("kl-curve", "ufldl-patches"))
    monkeypatch.setattr(reproduce, "_module", Counted)

    def run(*words):
        ran.clear()
        reproduce.main(["--all", "--out", str(tmp_path), *words])
        return list(ran)

    return run


def test_what_is_there_of_the_same_is_not_run_again(all_of, tmp_path, capsys):
    assert all_of() == ["kl-curve", "ufldl-patches"] and AGAIN not in capsys.readouterr().out
    assert all_of() == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["kl-curve", "ufldl-patches"]
    assert all(f"{AGAIN}: {tmp_path}" in line for line in lines)


def test_one_that_is_named_is_run_again(all_of, tmp_path, capsys):
    all_of()
    reproduce.main(["kl-curve", "--out", str(tmp_path)])
    assert "files:" in capsys.readouterr().out.splitlines()[-1]


def test_other_options_are_run(all_of, tmp_path):
    all_of("--quick")
    assert all_of() == ["kl-curve", "ufldl-patches"]
    (tmp_path / "kl-curve.json").unlink()
    (tmp_path / "ufldl-patches.json").unlink()
    assert all_of("--quick") == ["kl-curve", "ufldl-patches"]
    images = tmp_path / "images.npy"
    images.write_bytes(b"1")
    assert all_of("--quick", "--images", str(images)) == ["ufldl-patches"], "nothing else reads them"
    assert all_of("--quick", "--images", str(images)) == []
    images.write_bytes(b"2")
    assert all_of("--quick", "--images", str(images)) == ["ufldl-patches"]


def test_a_quick_run_replaces_no_whole_report(all_of, tmp_path, capsys):
    all_of()
    before = (tmp_path / "kl-curve.json").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        all_of("--quick")
    assert stopped.value.code == 2 and (tmp_path / "kl-curve.json").read_bytes() == before
    assert "a quick run replaces no report of a whole one" in capsys.readouterr().err


def test_a_quick_run_replaces_no_report_that_it_cannot_read(all_of, tmp_path, monkeypatch, capsys):
    all_of()
    before = (tmp_path / "kl-curve.json").read_bytes()

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(identity, "read_file", refuse)
    with pytest.raises(SystemExit) as stopped:
        all_of("--quick")
    assert stopped.value.code == 2 and (tmp_path / "kl-curve.json").read_bytes() == before
    line = f"that cannot be read: got {tmp_path / 'kl-curve.json'}: Permission denied; pass another --out"
    assert f"error: kl-curve: a quick run replaces no report {line}" in capsys.readouterr().err


def test_other_sources_or_versions_are_run(all_of, monkeypatch):
    all_of()
    monkeypatch.setattr(identity, "package_versions", lambda: {"jax": "another"})
    assert all_of() == ["kl-curve", "ufldl-patches"]
    monkeypatch.setattr(identity, "source_digest", lambda without: "another")
    assert all_of() == ["kl-curve", "ufldl-patches"]
    monkeypatch.setattr(identity, "sources_of", lambda module: [identity.ROOT / "README.md"])
    assert all_of() == ["kl-curve", "ufldl-patches"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made": {}, "options": 1, "passed": true}', "[" * 100_000])
def test_a_damaged_report_is_made_anew(all_of, tmp_path, text):
    all_of()
    (tmp_path / "kl-curve.json").write_text(text)
    assert all_of() == ["kl-curve"]
    assert all_of() == []


def test_a_report_without_its_figure_is_made_anew(all_of, tmp_path):
    all_of()
    (tmp_path / "kl-curve.png").unlink()
    assert all_of() == ["kl-curve"]


def test_a_saved_failure_fails_again(all_of, tmp_path):
    all_of()
    path = tmp_path / "kl-curve.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"passed": False}))
    with pytest.raises(SystemExit) as stopped:
        all_of()
    assert stopped.value.code == 1


def test_a_report_says_of_what_it_is(all_of, tmp_path):
    all_of()
    made = json.loads((tmp_path / "kl-curve.json").read_text())["made"]
    assert made["commit"] is None or len(made["commit"]) == 40
    assert {"jax", "python", "sae_jax", "scipy"} <= set(made["versions"])
    assert "cores" in made["machine"] and made["seconds"] >= 0 and len(made["sources"]) == 12


def test_sources_are_the_module_and_all_that_it_imports_here():
    names = {path.name for path in identity.sources_of("experiments.reproduce.ema_decay")}
    assert names >= {"ema_decay.py", "ema_bias.py", "checks.py", "report.py"} and "pca.py" not in names


def test_the_rooms_without_numbers_are_imported_by_no_other_and_read_by_no_reproduction_for_one():
    without = identity.WITHOUT_NUMBERS
    assert set(ROOMS[-len(without) :]) == set(without), "imports go one way"
    writing = {ROOT / "experiments" / "reproduce" / name for name in ("__main__.py", "report.py")}
    for path in sorted((ROOT / "experiments" / "reproduce").glob("*.py")):
        assert path in writing or not {room for room, _ in rooms_imported(path)} & set(without), path


def test_a_change_of_what_computes_is_one_of_the_digest(monkeypatch, tmp_path):
    for room in ("models", "commands"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("a = 1")
    (tmp_path / "storage").mkdir()
    monkeypatch.setattr(record, "__file__", str(tmp_path / "storage" / "record.py"))
    digests = {record.source_digest(), before := record.source_digest(identity.WITHOUT_NUMBERS)}
    (tmp_path / "commands" / "a.py").write_text("a = 2")
    assert record.source_digest(identity.WITHOUT_NUMBERS) == before
    (tmp_path / "models" / "a.py").write_text("a = 2")
    digests |= {record.source_digest(), record.source_digest(identity.WITHOUT_NUMBERS)}
    assert len(digests) == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_one_keeps_what_was_finished(number, code, tmp_path):
    process = start(["-m", "experiments.reproduce", "--all", "--quick", "--out", "out"], tmp_path)
    first = tmp_path / "out" / "kl-curve.json"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # The next one is under way.
    process.send_signal(number)
    out, complaints, returned = ended(process)
    assert returned == code and "kl-curve: " in out
    line = (
        f"interrupted; 1 of {len(reproduce.NAMES)} are finished and saved in out: the same command goes on from there"
    )
    assert complaints.strip() == line
    assert json.loads(first.read_text())["passed"]

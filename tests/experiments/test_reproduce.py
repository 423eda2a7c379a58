"""Reproductions at their quick size, and how they report."""

import contextlib
import json
from importlib import metadata

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import auxk, contractive, matryoshka_absorption
from experiments.reproduce.checks import KINDS, PRIMARY, RECALLED, Check, Source, expectation, number, order
from experiments.reproduce.report import Options, Report, saved_tables
from tests.tfds_files import write_digits_as_mnist

PAPER = Source("nobody 1900, table 1", PRIMARY)
# Their few steps take less time than optimising their programs does.
SHORT = {"pca", "ufldl-patches", "ufldl-mnist", "stacked", "ema-rule"}


def installed(package):
    """Whether a package is there, which is not imported for it."""
    return next((True for found in metadata.distributions(name=package)), False)


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory):
    """Where tensorflow-datasets finds scikit-learn's digits in the place of MNIST's."""
    folder = tmp_path_factory.mktemp("tfds")
    write_digits_as_mnist(folder)
    return str(folder)


@pytest.mark.parametrize("name", reproduce.NAMES)
def test_every_reproduction_runs_and_meets_its_quick_tolerance(
    name, tmp_path, capsys, digits_folder, monkeypatch, request
):
    if name not in SHORT:
        request.getfixturevalue("optimised")
    for package in getattr(reproduce._module(name), "PACKAGES", ()):
        if not installed(package):
            pytest.skip(f"{name} reads {package}, an optional extra that is not installed")
    monkeypatch.setattr(contractive, "SAMPLES_OF_SPECTRUM", 2)  # Each takes as long as a hundred steps.
    reproduce.main([name, "--quick", "--out", str(tmp_path), "--data-dir", digits_folder])
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["passed"] and content["options"]["quick"] and content["checks"]
    assert matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3].std() > 0.01
    out = capsys.readouterr().out
    assert content["source"] in out and content["checks"][0]["what"] in out


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("module", "name", "value", "row"),
    [
        (auxk, "AUX", 0.0, "dead share, AuxK"),
        (matryoshka_absorption, "NESTED", "batch_topk:rows=free", "absorption, Matryoshka over BatchTopK"),
    ],
)
def test_without_what_it_is_about_a_reproduction_fails_its_row(module, name, value, row, monkeypatch):
    monkeypatch.setattr(module, name, value)
    failed = [check.what for check in module.run(Options(quick=True)).checks if not check.passed]
    assert any(row in what for what in failed)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("words", "warned"), [([], True), (["--white"], False)])
def test_images_that_are_white_already_are_whitened_again_only_with_a_warning(words, warned, tmp_path, capsys):
    np.save(tmp_path / "white.npy", np.random.default_rng(0).normal(size=(3, 80, 80)))
    with contextlib.suppress(SystemExit):  # Noise has no edges to find.
        reproduce.main(
            ["ufldl-patches", "--quick", "--images", str(tmp_path / "white.npy"), *words, "--out", str(tmp_path)]
        )
    assert ("white already" in capsys.readouterr().out) == warned


def test_the_list_names_all_with_their_sources(capsys):
    reproduce.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(reproduce.NAMES)
    assert all(line.endswith(")") and len(line) > 60 for line in lines)


def test_too_few_files_to_open_are_refused_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr("resource.getrlimit", lambda _: (50, 50))
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--list"])
    line = "the limit of open files must be at least 64: got 50; raise ulimit -n"
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_number_outside_its_tolerance_ends_in_exit_code_1(tmp_path, monkeypatch, capsys):
    class Off:
        SOURCE = "nobody 1900"

        @staticmethod
        def run(options):
            return Report([number("|a number|", "1", PAPER, [1.5, 2.5], 0.9, 1.1, why="w")], Figure())

    monkeypatch.setattr(reproduce, "_module", lambda name: Off)
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["kl-curve", "--out", str(tmp_path)])
    assert stopped.value.code == 1
    assert json.loads((tmp_path / "kl-curve.json").read_text())["passed"] is False
    assert saved_tables(tmp_path).splitlines()[4] == (
        r"| `kl-curve` | \|a number\| | 1 (nobody 1900, table 1; primary) | 2 +- 0.71 (2 seeds) | 0.9 to 1.1: w | no |"
    )


@pytest.mark.parametrize(
    ("check", "row"),
    [
        (number("x", "0.50", PAPER, 0.501, 0.4, 0.6, why="w"), ("x", "0.50", "0.501", "0.4 to 0.6", "yes")),
        (order("x", "large", PAPER, 3.0, low=4.0, why="w"), ("x", "large", "3", ">= 4", "no")),
        (expectation("x", "small", 3.0, high=4.0, why="w"), ("x", "small", "3", "<= 4", "yes")),
        (expectation("x", "3.5", np.array([3.0]), why="w"), ("x", "3.5", "3", "none", "not asked")),
        (expectation("x", "1", [1.0, np.nan], 0, 2, why="w"), ("x", "1", "nan +- nan (2 seeds)", "0 to 2", "no")),
        (expectation("x", "1", [0.0, 1.0, 5.0], 0, 1.5, why="w"), ("x", "1", "2 +- 2.6 (3 seeds)", "0 to 1.5", "no")),
    ],
)
def test_checks_say_what_they_found(check, row):
    assert check.row == row


@pytest.mark.parametrize(
    "make",
    [
        lambda: number("x", "near 1", PAPER, 1.0, why="w"),
        lambda: number("x", "1", PAPER, 1.0, why=" "),
        lambda: order("x", "", PAPER, 1.0, why="w"),
        lambda: order("x", "more", Source("nobody 1900", "sure"), 1.0, why="w"),
        lambda: order("x", "more", Source("", RECALLED), 1.0, why="w"),
        lambda: expectation("", "1", 1.0, why="w"),
        lambda: expectation("x", "1", [], why="w"),
        lambda: Check("own", "x", "1", PAPER, (1.0,), 0, 1, "w"),
        lambda: Check("order", "x", "1", None, (1.0,), 0, 1, "w"),
        lambda: Check("guess", "x", "1", None, (1.0,), 0, 1, "w"),
    ],
)
def test_a_check_that_does_not_say_what_it_rests_on_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_saved_checks_come_back_as_a_table_for_every_kind(tmp_path):
    checks = [
        expectation("a law", "0", 0.5, high=1, why="the grid"),
        order("an order", "less", Source("nobody 1900", RECALLED), 0.5, high=1, why="the order"),
    ]
    Report(checks, Figure()).save("one", "nobody 1900", Options(), {}, tmp_path)
    tables = saved_tables(tmp_path)
    assert [line[4:].lower() for line in tables.splitlines() if line.startswith("### ")] == list(KINDS.values())
    numbers, orders, laws = tables.split("### ")[1:]
    assert numbers.count("\n|") == 2 and orders.count("\n|") == laws.count("\n|") == 3
    assert "| less (nobody 1900; recalled) | 0.5 | <= 1: the order | yes |" in orders
    assert "| `one` | a law | 0 | 0.5 | <= 1: the grid | yes |" in laws
    [law, claim] = json.loads((tmp_path / "one.json").read_text())["checks"]
    assert (law["kind"], law["source"], law["seeds"]) == ("own", "", [0.5])
    assert (claim["kind"], claim["source"], claim["grade"]) == ("order", "nobody 1900", "recalled")


def test_reports_are_saved_with_their_options(tmp_path):
    report = Report([expectation("x", "1", 1.0, 0, 2, why="w")], Figure())
    report.save("name", "source", Options(images="a.npy"), {"seconds": 1.0}, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "name.json").read_text())
    assert content["options"] == {"quick": False, "images": "a.npy", "white": False, "images_sha256": ""}
    assert content["made"] == {"seconds": 1.0} and content["passed"] is True


def test_one_without_its_data_does_not_keep_the_others_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "NAMES", ("ufldl-mnist", "kl-curve"))
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["--all", "--quick", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and (tmp_path / "out" / "kl-curve.json").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ufldl-mnist: tfds:mnist must be prepared") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "unknown reproduction nonsense"),
        (["kl-curv"], "did you mean kl-curve?"),
        ([], "name one reproduction, or pass --all"),
        (["kl-curve", "--all"], "name one reproduction, or pass --all"),
        (["kl-curve", "--quik"], "unknown flag --quik: did you mean --quick?"),
        (["ufldl-patches", "--quick", "--images", "nowhere.npy"], "needs a file that exists: got nowhere.npy"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        reproduce.main([*words, "--out", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1
    assert message in captured.err and not (tmp_path / "out").exists()

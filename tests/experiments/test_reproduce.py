"""Reproductions at their quick size, and how they report."""

import json

import matplotlib
import pytest
from matplotlib.figure import Figure

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import auxk, contractive, matryoshka_absorption
from experiments.reproduce.report import Check, Options, Report, markdown_table
from tests.tfds_files import write_digits_as_mnist


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory):
    """Where tensorflow-datasets finds scikit-learn's digits in the place of MNIST's."""
    folder = tmp_path_factory.mktemp("tfds")
    write_digits_as_mnist(folder)
    return str(folder)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("name", reproduce.NAMES)
def test_every_reproduction_runs_and_meets_its_quick_tolerance(name, tmp_path, capsys, digits_folder, monkeypatch):
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


def test_the_list_names_all_with_their_sources(capsys):
    reproduce.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(reproduce.NAMES)
    assert all(line.endswith(")") and len(line) > 60 for line in lines)


def test_a_number_outside_its_tolerance_ends_in_exit_code_1(tmp_path, monkeypatch, capsys):
    class Off:
        SOURCE = "nobody 1900"

        @staticmethod
        def run(options):
            return Report([Check("|a number|", "1", 2.0, 0.9, 1.1)], Figure())

    monkeypatch.setattr(reproduce, "_module", lambda name: Off)
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["kl-curve", "--out", str(tmp_path)])
    assert stopped.value.code == 1
    assert json.loads((tmp_path / "kl-curve.json").read_text())["passed"] is False
    assert markdown_table(tmp_path).splitlines()[2] == (
        r"| `kl-curve`: nobody 1900 | \|a number\| | 1 | 2 | +1 | 0.9 to 1.1 | no |"
    )


@pytest.mark.parametrize(
    ("check", "row"),
    [
        (Check("x", "0.5", 0.501, 0.4, 0.6), ("x", "0.5", "0.501", "+0.001", "0.4 to 0.6", "yes")),
        (Check("x", "large", 3.0, low=4.0), ("x", "large", "3", "", ">= 4", "no")),
        (Check("x", "small", 3.0, high=4.0), ("x", "small", "3", "", "<= 4", "yes")),
        (Check("x", "3.5", 3.0), ("x", "3.5", "3", "-0.5", "none", "")),
        (Check("x", "1", float("nan"), 0, 2), ("x", "1", "nan", "+nan", "0 to 2", "no")),
    ],
)
def test_checks_say_what_they_found(check, row):
    assert check.row == row


def test_reports_are_saved_with_their_options(tmp_path):
    report = Report([Check("x", "1", 1.0, 0, 2)], Figure())
    report.save("name", "source", Options(images="a.npy"), tmp_path / "new")
    content = json.loads((tmp_path / "new" / "name.json").read_text())
    assert content["options"] == {"quick": False, "images": "a.npy"} and content["passed"] is True


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

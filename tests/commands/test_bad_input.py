"""Bad input of every command ends in exit code 2 and one line of rule, value and fix, and changes nothing.

The cases are in `bad_inputs`, `bad_targets`, `bad_runs` and `bad_reports`, the files that they name in `bad_files`.
"""

import os
import re
import shutil
import warnings

import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.reproduce import __main__ as reproduce
from sae_jax import DataConfig
from sae_jax import sweep as train_all
from sae_jax.commands import evaluate, report, sweep, train
from sae_jax.commands import session as study
from sae_jax.storage import results
from tests import bad_files
from tests.bad_inputs import DATA, FLAGS, ONLY_SWEEP, ONLY_TRAIN
from tests.bad_reports import BENCHMARK, REPORT, REPRODUCE
from tests.bad_runs import DAMAGES, EVALUATE
from tests.bad_targets import TARGETS
from tests.commands.test_commands import run as run_alone

SHORT = ["--batch-size", "9"]


def of_data(case):
    name, *said = case
    return ["--dataset", name if ":" in name else f"array:{name}", *SHORT], *said


CASES = [
    (main, command, *case)
    for main, command, cases in (
        (sweep.main, "sweep", FLAGS + TARGETS + ONLY_SWEEP + [of_data(case) for case in DATA]),
        (train.main, "train", FLAGS + TARGETS + ONLY_TRAIN + [of_data(case) for case in DATA]),
        (evaluate.main, "evaluate", EVALUATE),
        (report.main, "report", REPORT),
        (reproduce.main, "reproduce", REPRODUCE),
        (benchmark.main, "benchmark", BENCHMARK),
    )
    for case in cases
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: two rho, two seeds, three units, on digits."""
    folder = tmp_path_factory.mktemp("finished")
    data, short = DataConfig(dataset="digits", samples=100), {"steps": 1, "d_hidden": 3, "batch_size": 20}
    results.save(train_all(data, seeds=2, rho=[0.05, 0.1], **short), folder)
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working folder; nothing may begin to train or to measure."""

    def began(*_, **__):
        raise AssertionError("it began")

    monkeypatch.chdir(tmp_path)
    for owner, name in ((study, "train"), (benchmark, "benchmark"), (results, "save_measures")):
        monkeypatch.setattr(owner, name, began)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    (tmp_path / "runs" / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo("pipe.npy")
    return tmp_path


def provide(words, finished, workplace):
    """Write the files and the run that words name."""
    names = {name for word in words for name in re.split("[:/]", word)}
    for name in names | ({"good.npy"} if "goood.npy" in names else set()):
        if name.removesuffix(".d") in bad_files.FILES:
            bad_files.write(workplace, name)
    if any("RUN" in word or word == "runn" for word in words):
        shutil.copytree(finished, workplace / "run")


def tree(folder):
    """Names and contents of all that is in a folder."""
    return {str(path): path.read_bytes() if path.is_file() else path.is_dir() for path in folder.rglob("*")}


def refused(main, words, workplace, capsys):
    """The line in which a command refuses its words."""
    before = tree(workplace)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        warnings.simplefilter("error")
        main(words)
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.err.count("\n") == 1 and said.err.startswith("error: ") and said.err.endswith("\n")
    assert said.err[:-1].isprintable() and "Traceback" not in said.out + said.err
    assert tree(workplace) == before and bad_files.MARKER not in os.listdir(workplace)
    return said.err


@pytest.mark.parametrize(
    ("main", "words", "says", "fix"),
    [(main, *case) for main, _, *case in CASES],
    ids=[" ".join([command, *words])[:80].encode("unicode_escape").decode() for _, command, words, *_ in CASES],
)
def test_bad_words_and_files_are_refused_in_one_line(main, words, says, fix, finished, workplace, capsys):
    provide(words, finished, workplace)
    words = [word.replace("RUN", "run") for word in words]
    line = refused(main, words, workplace, capsys)
    assert says in line and fix in line.partition(says)[2]


@pytest.mark.parametrize(("damage", "says", "fix"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_hostile_runs_are_refused_in_one_line(damage, says, fix, finished, workplace, capsys):
    shutil.copytree(finished, workplace / "run")
    damage(workplace / "run")
    line = refused(evaluate.main, ["run", "--task", "denoising", "--noise", "0.1"], workplace, capsys)
    assert says in line and fix in line.partition(says)[2]


@pytest.mark.parametrize("main", [sweep.main, train.main], ids=["sweep", "train"])
def test_a_read_only_folder_of_runs_is_refused(main, workplace, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is read-only; choose another --name or --runs" in refused(main, [], workplace, capsys)


def test_a_read_only_folder_of_reports_is_refused(workplace, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is read-only; choose another" in refused(reproduce.main, ["kl-curve"], workplace, capsys)


@pytest.mark.parametrize(
    ("module", "words", "line"),
    [
        ("sweep", ["--dataset", "array:bomb.npy"], "bomb.npy must be a .npy or .npz file of plain numbers: got "),
        ("train", ["--name", "../x"], "name must be that of a folder inside --runs: got ../x; "),
        (
            "evaluate",
            ["RUN", "--noise", "nan"],
            "--noise: noise must be a finite number: got 'nan'; the default is 0.05",
        ),
        ("reproduce", ["kl-curv"], "unknown reproduction kl-curv: did you mean kl-curve?"),
        ("benchmark", ["--table", "words.json"], "--table must name a file written by --json: got words.json"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_process_of_its_own_says_one_line_and_no_more(module, words, line, finished, tmp_path):
    provide(words, finished, tmp_path)
    before = tree(tmp_path)
    done = run_alone(module, *(word.replace("RUN", "run") for word in words), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert tree(tmp_path) == before

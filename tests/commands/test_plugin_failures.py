"""Plug-ins that would end a command, and runs to which measures of plug-ins are added or lost."""

import json
import warnings

import pytest

from sae_jax import SweepWarning
from sae_jax.commands import evaluate, merge, report, runs, sweep, table, units
from sae_jax.storage import results
from tests.commands.test_plugins import QUICK, refused
from tests.plugins.files import forgotten, written

DIGITS = ("--dataset", "digits", "--samples", "60")
LEAVES = "(_ for _ in ()).throw(SystemExit(0))"


@pytest.fixture(autouse=True)
def no_plugin_stays_loaded():
    with forgotten():
        yield


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (f"{{'a': term(lambda *_: {LEAVES})}}", ("--a", ".1", *DIGITS)),
        (f"{{'a': Source(lambda *_: {LEAVES}, 'rows')}}", ("--dataset", "a")),
        (f"{{'a': mine('a', terms=lambda s: {LEAVES})}}", DIGITS),
        (
            f"{{'a': type('A', (Observer,), {{'__init__': lambda self: {LEAVES}}})}}",
            ("--observers", "a", *DIGITS),
        ),
    ],
)
def test_a_plug_in_that_leaves_ends_the_command_in_one_line(parts, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, parts)
    said = refused(sweep.main, "--plugin", "parts.py", *QUICK, *words, "--name", "left", capsys=capsys)
    assert "a plug-in must not raise an exception: got SystemExit(0) at line " in said


def test_an_observer_that_leaves_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, f"{{'a': type('A', (Observer,), {{'points': lambda *_: {LEAVES}}})}}")
    sweep.main(["--plugin", "parts.py", *QUICK, *DIGITS, "--observers", "a", "--name", "run"])
    assert "warning: an observer must not raise an exception: got SystemExit(0) from A" in capsys.readouterr().out
    assert results.load("runs/run").sizes["step"] == 2


def test_an_extended_run_says_which_measures_of_plug_ins_it_lacks_or_loses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "{'a': Measure(lambda lane: jnp.mean(lane.codes), 'mean code')}")
    plugin = ("--plugin", "parts.py")
    with forgotten():
        sweep.main([*plugin, *QUICK, *DIGITS, "--name", "with"])
    sweep.main([*QUICK, *DIGITS, "--name", "without"])
    more = ("--seeds", "2", "--figures", "False")

    def warned(*words):
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always", SweepWarning)
            sweep.main([*words])
        return [line for line in capsys.readouterr().err.splitlines() if "eval_a" in line]

    [said] = warned("--extend", "runs/with", *more, "--name", "lost")
    assert said.startswith("warning: ") and "got runs/with with eval_a; add --plugin parts.py to keep them" in said
    assert "eval_a" not in results.load("runs/lost")
    [said] = warned(*plugin, "--extend", "runs/without", *more, "--name", "half")
    assert said.startswith("warning: lanes that are taken ") and "got runs/without without eval_a, NaN there" in said
    half = results.load("runs/half")["eval_a"]
    assert half.sel(seed=0).isnull().all() and half.sel(seed=1).notnull().all()
    assert warned(*plugin, "--extend", "runs/with", *more, "--name", "both") == []
    assert results.load("runs/both")["eval_a"].notnull().all()


def test_merged_runs_say_what_of_plug_ins_one_lacks_and_which_lanes_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "{'a': Measure(lambda lane: jnp.mean(lane.codes), 'mean code')}")
    with forgotten():
        sweep.main(["--plugin", "parts.py", *QUICK, *DIGITS, "--rho", ".1", "--beta", "1", "--name", "with"])
    sweep.main([*QUICK, *DIGITS, "--rho", ".2", "--beta", "1", "--keep", "none", "--name", "without"])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always", SweepWarning)
        merge.main(["runs/with", "runs/without", "--name", "both"])
    [said] = [line for line in capsys.readouterr().err.splitlines() if "lacks is NaN" in line]
    assert said.startswith("warning: ") and "got runs/without without eval_a, parameters; measure" in said
    both = results.load("runs/both")
    assert both["eval_a"].sel(rho=0.2).isnull().all() and both["eval_a"].sel(rho=0.1).notnull().all()
    left_out = "warning: left out for want of parameters (--keep): 1 of 2 lanes"
    for main, words in ((units.main, ["runs/both"]), (evaluate.main, ["runs/both", "--task", "retrieval"])):
        main(words)
        assert left_out in capsys.readouterr().out.splitlines()
    # Which names one lane, and leaves none out.
    units.main(["runs/both", "--lane", "rho=.1", "seed=0"])
    assert left_out not in capsys.readouterr().out
    report.main(["runs/both", "--plugin", "parts.py"])
    page = (tmp_path / "runs" / "both" / "report.html").read_text()
    assert "Samples of units are left out for the 1 of 2 lanes that have no parameters kept." in page


def test_a_hostile_name_of_a_plug_in_is_shown_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "{'a': Measure(lambda lane: jnp.mean(lane.codes), 'mean code')}")
    sweep.main(["--plugin", "parts.py", *QUICK, *DIGITS, "--name", "run"])
    folder = tmp_path / "runs" / "run"
    record = json.loads((folder / "config.json").read_text())
    record["plugins"][0]["file"] = "/x/\x1b[31mred\nfake line"
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "results.nc").unlink()
    capsys.readouterr()
    runs.main(["run"])
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("to resume: ")]
    assert "\\x1b[31mred\\nfake line" in line and "\x1b" not in said


def test_a_run_behind_the_files_is_asked_for_before_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "{'a': term()}")
    (tmp_path / "runs" / "run").mkdir(parents=True)
    said = refused(table.main, "--plugin", "parts.py", "runs/run", capsys=capsys)
    assert "got runs/run, a folder; name a run before the flag" in said

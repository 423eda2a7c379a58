"""The console command finds the commands, and says how to go on in the words that it was called by."""

import importlib
import json
import sys

import pytest

from sae_jax.commands import main, sweep
from sae_jax.storage import results

SMOKE = ["--dataset", "digits", "--steps", "4", "--d-hidden", "5", "--batch-size", "50", "--rho", "0.1", "--seeds", "1"]


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Call the console command as installed, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sae-jax", *words])
        main.main()

    return run


def test_help_lists_every_command_on_one_screen(called, capsys):
    called("--help")
    text = capsys.readouterr().out
    said = text.splitlines()
    assert said[0].startswith("usage: sae-jax COMMAND") and len(said) < 24 and max(map(len, said)) <= 80
    for name in main.COMMANDS:
        module = importlib.import_module(f"sae_jax.commands.{name}")
        sentence = (module.__doc__ or "").partition("\n")[0]
        assert f" {name} {sentence} " in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["swep"], "error: unknown command swep: did you mean sweep?"),
        (["--steps", "5"], f"error: unknown command --steps: known: {', '.join(sorted(main.COMMANDS))}"),
        ([], f"error: sae-jax needs a command: got none; use one of {', '.join(main.COMMANDS)}"),
        (["sweep", "--stps", "5"], "error: unknown flag --stps: did you mean --steps?"),
    ],
)
def test_a_bad_call_is_refused_in_one_line(called, capsys, words, line):
    with pytest.raises(SystemExit) as ended:
        called(*words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"{line}\n" and not said.out


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_help_of_a_command_names_it_as_it_was_called(called, capsys, name):
    with pytest.raises(SystemExit) as ended:
        called(name, "--help")
    assert not ended.value.code and capsys.readouterr().out.startswith(f"usage: sae-jax {name} ")


def unfinished(folder):
    """Take the results of a run away, as if it had not come so far."""
    (folder / "results.nc").unlink()
    (folder / "params.safetensors").unlink()
    (folder / "unfinished").mkdir()


def test_a_run_goes_on_from_a_clone_and_from_an_installed_package(called, monkeypatch, tmp_path, capsys):
    called("sweep", *SMOKE, "--figures", "False", "--report", "False", "--name", "one")
    folder = tmp_path / "runs" / "one"
    trained = results.load(folder)["loss"].values
    record = json.loads((folder / "config.json").read_text())
    assert record["command"].startswith("sae-jax sweep --dataset digits --steps 4")
    unfinished(folder)
    monkeypatch.setattr(sys, "argv", ["/clone/experiments/sweep.py"])
    sweep.main(["--resume", str(folder)])
    assert (results.load(folder)["loss"].values == trained).all()
    assert json.loads((folder / "config.json").read_text())["command"] == record["command"]
    unfinished(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        called("train", "--resume", str(folder))
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("got sae-jax train; use sae-jax sweep\n")

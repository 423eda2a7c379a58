"""Plug-ins that would end a command, and runs to which measures of plug-ins are added or lost."""

import pytest

from sae_jax.commands import sweep
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

"""The help of commands: narrow, short first, whole on demand, quiet where nobody reads on."""

import os
import subprocess
import sys

import pytest

from sae_jax.commands import evaluate, sweep, train
from sae_jax.commands.flags import _model_fields
from sae_jax.commands.help import FIRST
from sae_jax.settings import flag


def helped(command, *words, capsys):
    """What a command prints before it ends well."""
    with pytest.raises(SystemExit) as ended:
        command.main(list(words))
    assert not ended.value.code
    return capsys.readouterr().out


def flags_of(text):
    """The flags that a help explains, in its order."""
    starts = [line.strip(" │").split(" ")[0] for line in text.splitlines()]
    return [word for word in starts if word.startswith("--") and word.strip("-")]


@pytest.mark.parametrize(("command", "seeds"), [(sweep, "seeds"), (train, "seed")])
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_the_flags_that_people_need_come_first_and_all_on_demand(command, seeds, asked, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    short = helped(command, asked, capsys=capsys)
    names = [name for name in FIRST if name not in {"seeds", "seed"} - {seeds}]
    assert flags_of(short) == list(map(flag, names)) and len(names) == 10
    assert "--help all shows all" in " ".join(short.split())
    whole = helped(command, asked, "all", capsys=capsys)
    assert {*map(flag, [*_model_fields(), *names])} < set(flags_of(whole))
    for text in (short, whole):
        assert max(map(len, text.splitlines())) <= 80


def test_the_help_of_evaluate_is_narrow_and_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = helped(evaluate, "--help", capsys=capsys)
    assert "--neighbours" in flags_of(text) and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help", "all"], ["evaluate", "-h"]], ids=" ".join)
def test_help_is_quiet_where_nobody_reads_it(words):
    reading, writing = os.pipe()
    os.close(reading)
    code = "from sae_jax.commands.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")

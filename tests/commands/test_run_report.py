"""The list of runs in words: names as they are."""

from pathlib import Path

from sae_jax.commands.run_report import print_list
from sae_jax.storage.run_list import Run


def test_names_are_listed_as_they_are(capsys):
    print_list([Run(Path(name), "finished", 1, 1.0, True) for name in ("wide[rho]", "[bold]", ":one:")], "all[/b]")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.strip() == "runs in all[/b]"
    assert [line.split()[1] for line in lines if "finished" in line] == ["wide[rho]", "[bold]", ":one:"]

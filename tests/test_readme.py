"""The README's Python runs as written, and what it names exists."""

import re
from pathlib import Path

import pytest

from experiments.benchmark.__main__ import markdown_table as benchmark_table
from experiments.benchmark.__main__ import saved
from experiments.reproduce.report import markdown_table
from sae_jax.data import SOURCES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_data_set_is_listed():
    for kind in SOURCES:
        assert f"`{kind}" in README


def test_every_figure_is_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file()


def test_the_table_of_reproductions_is_the_commands_own():
    assert markdown_table(ROOT / "reproductions") in README


def test_the_table_of_the_benchmark_is_the_commands_own():
    assert benchmark_table(saved(ROOT / "docs" / "benchmark.json")) in README

"""The Python of README and CONTRIBUTING runs as written, and what the documents name exists."""

import json
import re
from pathlib import Path

import pytest

from experiments.benchmark.__main__ import saved
from experiments.benchmark.tables import markdown_tables as benchmark_tables
from experiments.reproduce.report import saved_tables
from sae_jax import lane_settings
from sae_jax.models import MODELS
from sae_jax.models.classic_loss import terms
from tests.conftest import as_for_a_user
from tests.faults.__main__ import markdown_table as faults_table
from tests.faults.matrix import COMMANDS
from tests.processes import ended, environment, start
from tests.storage.test_checkpoints import FAULTS
from tests.sweeps.test_chunk import TRAININGS

ROOT = Path(__file__).parents[1]
# Those in folders of docs/ are held by test_docs.py.
DOCUMENTS = {
    path.name: path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
}
README = DOCUMENTS["README.md"]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Code of the Chinese one is the same: tests/test_translations.py.
BLOCKS = [(name, code) for name, text in DOCUMENTS.items() if ".zh" not in name for code in BLOCK.findall(text)]
LONGEST_EXAMPLE = 20


# What is shown first learns, in every lane.
LEARNED = """
assert float(results["eval_dead_fraction"].max()) < 0.1
assert float(results["eval_explained_variance"].min()) > 0.3
"""


@pytest.mark.parametrize(("name", "code"), BLOCKS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BLOCKS)])
def test_code_runs(name, code):
    first = name == "README.md" and "results = " in code
    # The first one trains longest, and does it as for a user, from imports on.
    variables = as_for_a_user(environment()) if first else None
    out, err, ended_with = ended(start(["-c", code + LEARNED * first], ROOT, variables))
    assert ended_with == 0, err
    assert out.strip()


def test_every_kind_of_part_has_a_short_example():
    parts = DOCUMENTS["CONTRIBUTING.md"].split("\n## ")[1:]
    assert [part.partition("\n")[0] for part in parts] == [
        *("A term of the loss", "A measure", "A model", "A data set", "A task")
    ]
    for part in parts:
        [code] = BLOCK.findall(part)
        assert len([line for line in code.splitlines() if line.strip()]) < LONGEST_EXAMPLE


def test_the_readme_is_short_and_begins_with_its_two_commands():
    lines = README.splitlines()
    commands = [line.strip() for line in lines[:20] if line.startswith("    ")]
    assert len(lines) < 200
    assert commands == [
        "python -m pip install -r requirements.txt && python -m experiments.sweep",
        "python -m pip install -r requirements-dev.txt && python -m pytest",
    ]


def test_the_layout_names_every_room():
    listed = re.findall(r"^    sae_jax/(\w+)/ ", README, re.MULTILINE)
    rooms = {path.parent.name for path in (ROOT / "sae_jax").glob("*/__init__.py")}
    assert len(listed) == 9 and set(listed) == rooms


def test_every_model_is_listed():
    section = README.partition("\n## The architectures people train today\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(listed)) == list(MODELS)


def test_the_equations_have_the_penalties_that_may_be_left_out():
    every = dict.fromkeys(("l1", "contractive", "partial_sparsity", "average_sparsity"), 0.1)
    off = [name for name in terms(lane_settings(**every).model) if name not in terms(lane_settings().model)]
    page = DOCUMENTS["equations.md"]
    assert re.findall(r"`(\w+)`", re.search(r"Of the penalties (.*?), one whose", page, re.DOTALL)[1]) == off
    for text in (README, page):
        assert all(f"+ {name} * mean_" in text for name in off)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_file_that_is_named_is_there(name):
    for path in re.findall(r"`((?:sae_jax|experiments|tests|docs)/[\w/]+\.\w+)`", DOCUMENTS[name]):
        assert (ROOT / path).is_file(), path


def test_the_tables_of_reproductions_are_the_commands_own():
    assert saved_tables(ROOT / "reproductions") in DOCUMENTS["reproductions.md"]


def test_the_table_of_faults_is_the_commands_own():
    counts = json.loads((ROOT / "docs" / "reliability.json").read_text())
    assert faults_table(counts) in DOCUMENTS["reliability.md"]
    assert list(counts["commands"]) == [command.name for command in COMMANDS]
    assert f"every file of {len(COMMANDS)} commands" in DOCUMENTS["reliability.md"]


def test_the_counts_of_what_a_run_promises_are_those_of_its_tests():
    several = sum(isinstance(changes.get("model"), list) for changes, _ in TRAININGS.values())
    page = DOCUMENTS["reliability.md"]
    assert f"{len(TRAININGS)} trainings of more than three lives each, {several} of them of three architectures" in page
    assert f"{len(FAULTS)} faults in each of its files" in page


def test_the_table_of_the_benchmark_is_the_commands_own():
    assert benchmark_tables(saved(ROOT / "docs" / "benchmark.json")) in DOCUMENTS["benchmark.md"]

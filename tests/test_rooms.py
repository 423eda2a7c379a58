"""The rooms of the house: imports go one way, files are short, and what has one place is in no other."""

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sae_jax"
# A room may import those before it and itself; the last one also what the package exports of them.
ROOMS = ("settings", "storage", "models", "data", "training", "sweeps", "analysis", "pages", "plugins", "commands")
LONGEST = 300
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILES = [path for folder in ("sae_jax", "experiments", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    """Every module that a file imports, also inside functions, as (its dotted name, the line)."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from sae_jax import data` names a room, `from sae_jax.data import load` does not name a module.
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def rooms_imported(path):
    """The rooms of sae_jax that a file imports, with the lines; "" is the package itself, which imports them all."""
    for name, line in imported(path):
        first, *rest = name.split(".")
        if first == "sae_jax":
            yield rest[0] if rest and rest[0] in ROOMS else "", line


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def where(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def test_the_rooms_are_those_that_stand_in_the_package():
    rooms = {room_of(path) for path in SOURCES} - {"__init__"}
    assert rooms == set(ROOMS)


def test_imports_between_rooms_go_one_way():
    wrong = []
    for path in SOURCES:
        if room_of(path) == "__init__":
            continue
        allowed = ROOMS[: ROOMS.index(room_of(path)) + 1] if room_of(path) != ROOMS[-1] else (*ROOMS, "")
        outside = [(room, line) for room, line in rooms_imported(path) if room not in allowed]
        wrong += [f"{where(path, line)} imports {room or 'sae_jax'}" for room, line in outside]
    assert not wrong, "\n".join(wrong)


def test_the_package_imports_neither_experiments_nor_tests():
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        for name, line in imported(path)
        if name.split(".")[0] in ("experiments", "tests")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import sae_jax.data.samples", ["data"]),
        ("from sae_jax.sweeps.grid import make_grid", ["sweeps"]),
        ("from sae_jax import data, Data", ["data", ""]),
        ("def f():\n    from sae_jax.analysis import figures", ["analysis"]),
        ("if TYPE_CHECKING:\n    from sae_jax.commands.flags import parse", ["commands"]),
        ("from ..sweeps import grid", ["sweeps"]),
        ("from . import batches", ["data"]),
        ("import sae_jaxed, os", []),
    ],
)
def test_every_way_of_importing_a_room_is_noticed(code, rooms, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_rooms.ROOT", tmp_path)
    path = tmp_path / "sae_jax" / "data" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert [room for room, _ in rooms_imported(path)] == rooms


def test_no_file_is_longer_than_a_newcomer_reads_at_once():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def compared_words(path):
    """Words of a source that something is compared with, or looked for in, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [node.pattern] if isinstance(node, ast.match_case) else []
        for part in itertools.chain.from_iterable(map(ast.walk, sides)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value, part.lineno


def test_only_the_training_knows_one_optimizer_from_another():
    wrong = [
        where(path, line)
        for path in SOURCES
        if room_of(path) != "training"
        for word, line in compared_words(path)
        if word == "lbfgs"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (r"\bos\.replace\b", {"storage/atomic.py"}),
        (r"\bshutil\.rmtree\b", {"storage/atomic.py"}),
        (r"\bjax\._src\b", set()),
        (r"\.resolve\(", set()),  # It raises what is no OSError at a link that leads to itself.
        (r"\bConsole\(", {"sweeps/consoles.py"}),  # Others would take users' names for markup.
    ],
    ids=["atomic writes", "removed folders", "JAX's private modules", "links", "consoles"],
)
def test_what_has_one_place_is_in_no_other(pattern, places):
    files = {path.relative_to(PACKAGE).as_posix() for path in SOURCES if re.search(pattern, path.read_text())}
    assert files == places

"""The linter and the type checker find nothing, and no text is read by the encoding of whoever runs the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("sae_jax", "experiments") for path in (ROOT / room).rglob("*.py"))
# Whose `open` is of no text file, or of none of the system's.
OTHERS = ("os", "archive", "log", "sae_jax")


@pytest.mark.parametrize("words", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_clean(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def without_encoding(code):
    """The lines of calls that read or write text and name no encoding, which the linter knows of plain paths alone."""
    for call in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]:
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if method else getattr(call.func, "id", "")
        named = {word.arg: word.value for word in call.keywords}
        modes = [one.value for one in [*call.args, *named.values()] if isinstance(one, ast.Constant)]
        binary = any(isinstance(mode, str) and re.fullmatch(r"[rwxa+]*b[rwxa+]*", mode) for mode in modes)
        opened = name == "open" and not (method and ast.unparse(call.func.value) in OTHERS)
        texts = name in ("read_text", "write_text") and len(call.args) <= (name == "write_text")
        decoded = [word for word in ("text", "universal_newlines") if getattr(named.get(word), "value", False) is True]
        if "encoding" not in named and (texts or decoded or ((opened or name == "fdopen") and not binary)):
            yield call.lineno


def test_every_text_file_names_its_encoding():
    found = {path: list(without_encoding(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(found) > 200 and {path: lines for path, lines in found.items() if lines} == {}


def test_what_a_text_without_an_encoding_is():
    wrong = ["p.read_text()", "p.write_text(a)", "open(p)", "gzip.open(p, 'rt')", "(p / q).open('w')", "os.fdopen(3)"]
    right = ["p.read_text('utf-8')", "p.write_text(a, encoding=b)", "open(p, 'rb')", "p.open(mode='r+b')", "os.open(p)"]
    for code in [*wrong, "run(words, text=True)"]:
        assert list(without_encoding(code)) == [1], code
    for code in right:
        assert not list(without_encoding(code)), code

"""Wrong values end in one line that names the argument and the value, in every argument of every public function."""

import collections
import inspect
import json
import re
import subprocess
import sys

import pytest

import sae_jax
from tests import api_values
from tests.test_rooms import ROOT

CASES = api_values.cases()


@pytest.fixture(scope="module")
def ends():
    """How each call ended, by function and argument."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.api_values"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    by_argument = collections.defaultdict(list)
    for function, argument, *end in json.loads(done.stdout):
        by_argument[function, argument].append(end)
    return by_argument


def test_every_public_function_and_argument_is_tried():
    functions = {name: getattr(sae_jax, name) for name in sae_jax.__all__}
    functions = {name: one for name, one in functions.items() if inspect.isroutine(one)}
    assert {"sweep", "open", "train_step", "kl_penalty", "batch_indices"} <= set(functions) <= set(CASES)
    for name, function in functions.items():
        parameters = inspect.signature(function).parameters.values()
        tried = set(CASES[name][2]) | ({"datasets"} if name == "merge" else set())
        assert {one.name for one in parameters if one.kind != one.VAR_KEYWORD} <= tried, name


@pytest.mark.parametrize(
    ("function", "argument"), [(name, argument) for name, (_, _, arguments) in CASES.items() for argument in arguments]
)
def test_wrong_values_are_refused_in_one_line(function, argument, ends):
    assert ends[function, argument]
    for value, noun, shown, classes, message in ends[function, argument]:
        said = f"{value}: {classes[:1]} {message}"
        assert "UserError" in classes and "ValueError" in classes, said
        assert message.isprintable() and re.search(r"\bgot\b|\bunknown\b", message), said
        assert re.search(noun, message) and re.search(shown, message), said

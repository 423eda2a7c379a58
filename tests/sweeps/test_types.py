"""The types that a sweep passes through: few, each described, and each a value that is never changed."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from sae_jax import sweeps

FOLDER = Path(sweeps.__file__).parent
MOST = 12
# In the order in which a sweep passes through them, with the modules that define them.
PATH = {
    "Engine": "sweeps.plan",
    "Grid": "sweeps.grid",
    "Earlier": "sweeps.study",
    "Point": "sweeps.program",
    "Plan": "sweeps.plan",
    "Program": "sweeps.program",
    "Study": "sweeps.study",
    "Lanes": "sweeps.program_lanes",
    "Chunk": "sweeps.plan",
    "Recovery": "sweeps.recovery",
    "Position": "storage.checkpoints",
    "Variable": "sweeps.dataset",
}
# Those beside that way: who watches, what is counted or merged, and how a training ends early.
BESIDE = {
    "Observer": "sweeps.observers",
    "Observers": "sweeps.observers",
    "Progress": "sweeps.observers",
    "Points": "sweeps.observers",
    "Terminal": "sweeps.terminal",
    "Notebook": "sweeps.terminal",
    "Status": "sweeps.terminal",
    "_Words": "sweeps.terminal",
    "Unfailing": "sweeps.streams",
    "Nowhere": "sweeps.streams",
    "Tracker": "sweeps.trackers",
    "Writer": "sweeps.trackers",
    "TensorBoard": "sweeps.trackers",
    "WeightsAndBiases": "sweeps.trackers",
    "Trackio": "sweeps.trackers",
    "Dictionary": "sweeps.dictionaries",
    "Footprint": "sweeps.footprint",
    "Part": "sweeps.merge",
    "_ChunkTraining": "sweeps.chunk",
    "Interrupted": "sweeps.recovery",
    "Refused": "sweeps.processes",
}


def nodes():
    """Everything that the room's files say, as (name of the module, node of its syntax)."""
    for path in sorted(FOLDER.rglob("*.py")):
        module = ".".join(["sweeps", *path.relative_to(FOLDER).with_suffix("").parts])
        yield from ((module, node) for node in ast.walk(ast.parse(path.read_text())))


def test_a_new_type_is_described_and_the_way_of_a_sweep_stays_short():
    defined = [(node.name, module) for module, node in nodes() if isinstance(node, ast.ClassDef)]
    known = PATH | BESIDE
    assert sorted(defined) == sorted((name, module) for name, module in known.items() if module.startswith("sweeps."))
    assert len(PATH) <= MOST


def test_the_rooms_description_names_the_types_in_their_order():
    description, beside = (sweeps.__doc__ or "").split("A sweep passes through")[1].split("Beside that way")
    places = [re.search(rf"\b{name}\b", description) for name in PATH]
    assert all(places) and [place.start() for place in places] == sorted(place.start() for place in places)
    assert {name for name in BESIDE if not re.search(rf"\b{name}\b", beside)} == set()


@pytest.mark.parametrize("name", PATH)
def test_a_type_on_the_way_of_a_sweep_is_a_value_that_is_never_changed(name):
    found = getattr(importlib.import_module(f"sae_jax.{PATH[name]}"), name)
    frozen = getattr(found, "__dataclass_params__", None)
    assert issubclass(found, tuple) or (frozen is not None and frozen.frozen)


def test_no_function_changes_the_names_of_another():
    assert [module for module, node in nodes() if isinstance(node, ast.Nonlocal | ast.Global)] == []

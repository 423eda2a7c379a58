"""Plug-ins for tests, and forgetting them."""

import contextlib
from pathlib import Path

from sae_jax.plugins import LOADED, unload

EXAMPLE = Path(__file__).parents[2] / "docs" / "my_parts.py"
HEAD = """
import dataclasses
import jax.numpy as jnp
from sae_jax import CLASSIC, Measure, Observer, Term
from sae_jax.data import Rows
from sae_jax.models.base import Parameter
from sae_jax.plugins import AddedTerm, Source, Task
from sae_jax.settings import NON_NEGATIVE, POSITIVE, setting, swept

def term(compute=lambda codes, params, step, s: jnp.mean(codes), weight=swept(0.0, NON_NEGATIVE, "", off=0.0), **more):
    return AddedTerm(weight, compute, Term("mean code", "1"), **more)

def mine(name, **changes):
    return CLASSIC._replace(name=name, **changes)

def fails(*arguments):
    raise RuntimeError("not today")
"""


def written(folder, parts, name="parts.py"):
    """A file of a plug-in with some parts, given as the text of a dict, after `HEAD`."""
    path = folder / name
    path.write_text(f"{HEAD}\nPARTS = {parts}\n")
    return path


@contextlib.contextmanager
def forgotten():
    """Unload, at the end, what was loaded meanwhile."""
    before = set(LOADED)
    try:
        yield
    finally:
        for path in set(LOADED) - before:
            unload(LOADED[path])


def install(folder, module="their_parts", distribution="their-parts", version="1.2", text=None):
    """Install the example, or another text, as a package into a folder, as pip would."""
    (folder / f"{module}.py").write_text(EXAMPLE.read_text() if text is None else text)
    about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[sae_jax.plugins]\nparts = {module}\n")

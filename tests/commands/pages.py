"""Commands of a document, as a user types them one after another."""

import contextlib
import importlib
import io
import re
import shlex
from importlib.util import find_spec

import pytest

from sae_jax.analysis import figures


@contextlib.contextmanager
def typed_commands(text, folder):
    """Run every indented `python -m experiments.NAME WORDS` of a text in a folder, without a run's own figures.

    The folder is the working directory, and runs draw no figures, until the context ends.

    Args:
        text: of the document.
        folder: in which commands are typed.

    Yields:
        (name, words, what it printed) of each, in their order.
    """
    typed = []
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(figures, "save_all", lambda dataset, folder: [])  # Which takes longest.
        for name, line in re.findall(r"^    python -m experiments\.(\w+) (.*)$", text, re.MULTILINE):
            words = shlex.split(line)
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                importlib.import_module(f"sae_jax.commands.{name}").main(words)
            typed.append((name, words, stream.getvalue()))
        yield typed


def steps_of(text):
    """What a reader of a document does, in its order: ("python", a block) or ("command", an indented line)."""
    pattern = re.compile(r"^```python\n(.*?)^```$|^    (python -m experiments\.[^\n]*)$", re.DOTALL | re.MULTILINE)
    return [("python", code) if code else ("command", line) for code, line in pattern.findall(text)]


def take(kind, step):
    """Take a step of `steps_of` in this process and the working directory: what it printed.

    Raises:
        SystemExit: a command ended otherwise than well.
    """
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        if kind == "python":
            exec(compile(step, "document", "exec"), {"__name__": "document"})
        else:
            _, _, module, *words = shlex.split(step)
            own = f"sae_jax.commands.{module.removeprefix('experiments.')}"
            importlib.import_module(own if find_spec(own) else f"{module}.__main__").main(words)
    return stream.getvalue()

"""Commands of a document, as a user types them one after another."""

import contextlib
import importlib
import io
import re
import shlex

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

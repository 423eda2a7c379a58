"""What a run's folder tells of how it was made: log.txt, the lines that were printed, and provenance.json."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import xarray as xr

from sae_jax.analysis.report import print_table
from sae_jax.settings import UserError
from sae_jax.storage.atomic import check_regular, writing
from sae_jax.storage.provenance import LOG_FILE, now, read_sessions, write_sessions
from sae_jax.sweeps.consoles import plain_console
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.recovery import Interrupted


class RunLog(Observer):
    """Keeps the lines of a run in its folder's log.txt, after those of the processes before."""

    def __init__(self) -> None:
        self._stream: TextIO = io.StringIO()

    def open(self, folder: Path, command: str) -> None:
        """Write from now on into the folder; first the command, and the lines that have come so far.

        Raises:
            UserError: the folder cannot be written to.
        """
        with writing(folder):
            check_regular(folder / LOG_FILE)
            # A link at this name would be written through.
            descriptor = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            before, self._stream = self._stream, os.fdopen(descriptor, "a", encoding="utf-8")
            assert isinstance(before, io.StringIO)
            self.line(f"{now()} {command}\n{before.getvalue()}".rstrip("\n"))

    def line(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def table(self, dataset: xr.Dataset) -> None:
        """Write the table of a finished sweep."""
        text = io.StringIO()
        print_table(plain_console(text), dataset)
        with contextlib.suppress(OSError):
            self.line(text.getvalue().rstrip("\n"))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


@contextlib.contextmanager
def recorded(folder: Path, session: dict[str, Any], log: RunLog) -> Iterator[None]:
    """Record in a run's folder that a process works on it, and how that ends.

    Args:
        folder: claimed by this process.
        session: as `session_of` returns it.
        log: is opened in the folder.

    Raises:
        UserError: the folder cannot be written to.
    """
    began, before, outcome = time.monotonic(), read_sessions(folder), "failed"
    write_sessions(folder, [*before, session])
    log.open(folder, session["command"])
    try:
        yield
        outcome = "finished"
    except Interrupted as error:
        outcome = "interrupted"
        with contextlib.suppress(OSError):
            log.line(error.line)
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            log.line(f"error: {error}")
        raise
    finally:
        ended = {"ended": now(), "seconds": round(time.monotonic() - began, 3), "outcome": outcome}
        with contextlib.suppress(UserError):  # The run has ended, and with its own error where it has failed.
            write_sessions(folder, [*before, session | ended])

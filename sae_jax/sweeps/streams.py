"""Where a process prints: a reader that goes away, or a disk that fills, must not end a training."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO, cast


class Unfailing:
    """A text stream that keeps to itself what it could not write.

    Attributes:
        failure: the first error; None where there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, if it can be written."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if it can be written."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.failure = self.failure or error
        except ValueError as error:  # It has been closed.
            self.failure = self.failure or OSError(errno.EBADF, str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Nowhere(io.TextIOBase):
    """A text stream that loses everything."""

    def write(self, text: str) -> int:
        """Lose a text."""
        return len(text)


def unfailing(stream: TextIO | None) -> TextIO:
    """A stream as one that never raises an OSError, nor an error for a letter that its encoding lacks.

    Args:
        stream: None, as Python has it where a process was started without one, loses everything; so does a closed one.
    """
    if isinstance(stream, Unfailing):
        return cast(TextIO, stream)
    if stream is None or getattr(stream, "closed", False):
        stream = cast(TextIO, Nowhere())
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return cast(TextIO, Unfailing(stream))


def is_terminal(stream: Any) -> bool:
    """Whether a stream leads to a terminal: one that is None, closed or no more than written to does not."""
    with contextlib.suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


def open_streams() -> None:
    """Make stdout and stderr unfailing until the process ends: Python writes to them once more at its very end."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # Or a file opened next would have this number, and get what libraries print.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
    sys.stdout, sys.stderr = unfailing(sys.stdout), unfailing(sys.stderr)


def lost_output() -> OSError | None:
    """Why not all of what was printed has been written, unless its reader went away, who has seen enough."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    return None if isinstance(failure, BrokenPipeError) else failure

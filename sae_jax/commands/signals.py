"""Ending a run when it is asked to, by Ctrl-C or by a machine or a terminal that is taken away."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Those who end processes give them ten seconds at least.
PATIENCE_SECONDS = 8.0
CLOSED = 0
SOON_SECONDS = 0.01
# A progress bar hides it. What follows stands below the ^C.
SHOW_CURSOR = "\x1b[?25h\n"


def end_at_once() -> None:
    """Have Ctrl-C end this process at once, with one line, instead of raising KeyboardInterrupt.

    While libraries are imported, some of them swallow the exception, some abort, and others print pages about it.
    """
    signal.signal(signal.SIGINT, _end_at_once)


def end_in_order() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, where `end_at_once` was called: something is to be taken away."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, _end_in_order)


def _end_in_order(number: int, _: object) -> NoReturn:
    # At the interpreter's end, threads of XLA that still compute would crash.
    atexit.register(_leave_flushed, 128 + signal.SIGINT)
    sys.unraisablehook = _once_more
    raise KeyboardInterrupt


def _once_more(lost: sys.UnraisableHookArgs) -> None:
    """Raise KeyboardInterrupt again, soon, where it was raised inside what can raise nothing, as a callback of XLA."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _end_in_order)
    signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS)


def _leave_flushed(code: int) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Streams may be gone, closed or none.
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _end_at_once(number: int, _: object) -> None:
    _leave(number, "interrupted")


def _leave(number: int, line: str) -> NoReturn:
    try:
        # Nobody may be there to read it any longer, and then it must not keep the process.
        if select.select([], [2], [], 0.5)[1]:
            os.write(2, f"{SHOW_CURSOR if os.isatty(2) else ''}{line}\n".encode())
    finally:
        os._exit(128 + number)


class Interrupts:
    """Signals that ask this process to end, received also while the main thread is inside a long computation.

    Attributes:
        number: the first signal that came; 0 before.
        last_words: printed where the process has to end before it has ended by itself.
        patience: seconds that it may take for that.
    """

    def __init__(self, last_words: str) -> None:
        self.number, self.last_words, self.patience = 0, last_words, PATIENCE_SECONDS

    def asked(self) -> bool:
        """Whether the process is to end."""
        return self.number > 0

    def listen(self, pipe: int) -> None:
        """Read the numbers of signals from a pipe until it says CLOSED; end the process if it has not ended in time.

        A second signal ends it at once, but for SIGHUP, which both the system and a shell send as a terminal closes.
        """
        deadline: float | None = None
        while True:
            left = (
                None
                if deadline is None
                else max(0.0, min(deadline, time.monotonic() + self.patience) - time.monotonic())
            )
            if not select.select([pipe], [], [], left)[0]:
                self._leave()
            number = os.read(pipe, 1)[0]
            if number == CLOSED:
                return
            if number in SIGNALS:
                if not self.number:
                    self.number, deadline = number, time.monotonic() + self.patience
                elif number != signal.SIGHUP:
                    self._leave()

    def _leave(self) -> None:
        _leave(self.number, self.last_words)


@contextlib.contextmanager
def interrupts_of(last_words: str) -> Iterator[Interrupts]:
    """Receive SIGINT, SIGTERM and SIGHUP instead of being ended by them; a SIGHUP that nohup has ignored stays so.

    Args:
        last_words: how to resume; printed where the process has to end before it has ended by itself.
    """
    interrupts = Interrupts(last_words)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers wait for the main thread; the number of a signal is written to the pipe at once.
    wanted = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in wanted}
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener = threading.Thread(target=interrupts.listen, args=(reading,), daemon=True)
    listener.start()
    try:
        yield interrupts
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.write(writing, bytes([CLOSED]))
        listener.join()
        os.close(reading)
        os.close(writing)

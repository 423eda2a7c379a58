"""One way to fail: a line, and the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax

from sae_jax.commands.cluster import end
from sae_jax.commands.plugin_flags import plugin_failure
from sae_jax.commands.variables import BAD_INPUT
from sae_jax.settings import UserError
from sae_jax.storage.atomic import FIXES, mend_unread, reason_of, unwritable
from sae_jax.sweeps.recovery import Interrupted
from sae_jax.sweeps.streams import lost_output, open_streams

FAILED, INTERRUPTED = 1, 130


@contextlib.contextmanager
def one_line_errors(printing: bool = True) -> Iterator[None]:
    """End the process with one line and exit code 2 on bad input, 130 when interrupted.

    Args:
        printing: whether the command has failed where what it prints cannot be written.
    """
    open_streams()
    try:
        yield
        if printing and (failure := lost_output()):
            raise unwritable(Path("stdout"), failure, "what is printed", "print to another place")
    except UserError as error:
        end(error, BAD_INPUT, f"error: {error}")
    except Interrupted as error:
        end(error, 128 + (error.number or signal.SIGTERM), error.line)
    except KeyboardInterrupt as error:
        end(error, INTERRUPTED, "interrupted")
    except BaseException as error:
        reasons = (_missing_platform, _missing_folder, _debugging, plugin_failure, _refusal)
        if line := next(filter(None, (reason(error) for reason in reasons)), ""):
            end(error, BAD_INPUT, f"error: {line}")
        end(error, FAILED)


def _missing_platform(error: BaseException) -> str:
    """The line about a kind of device that the environment asks for and JAX does not have; "" of any other error."""
    given = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
    if given and isinstance(error, RuntimeError | AssertionError):
        try:
            jax.default_backend()
        except (RuntimeError, AssertionError):  # Some platforms fail an assertion instead of saying anything.
            wrong = given[0]
            return f"{wrong} must name devices that JAX finds here: got {os.environ[wrong]}; unset it, or set it to cpu"
    return ""


def _missing_folder(error: BaseException) -> str:
    """The line about a working folder that was removed, where no path can be made whole; "" of any other error."""
    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return "the working folder must exist: got one that was removed; change to another and repeat the command"
    return ""


def _debugging(error: BaseException) -> str:
    """The line about a variable that has JAX raise at values which lanes may have; "" of any other error."""
    given = [name for name in ("jax_debug_nans", "jax_debug_infs") if jax.config.values[name]]
    if given and isinstance(error, FloatingPointError):
        return f"{given[0].upper()} must be off, since lanes may hold such values: got {reason_of(error)}; unset it"
    return ""


def _refusal(error: BaseException) -> str:
    """The line about a file, or memory, that the system keeps from this process, and no damage does; "" of others."""
    if isinstance(error, MemoryError):
        return f"a command must find the memory that it needs: got {reason_of(error)}; free some, or raise ulimit -v"
    if isinstance(error, OSError) and (error.filename or error.errno in FIXES) and (fix := mend_unread(error, "")):
        named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"a command must reach the files that it needs: got {named}{reason_of(error)}; {fix}"
    return ""

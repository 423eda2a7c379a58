"""Variables of the environment that libraries read as they are imported, before a command could refuse one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

BAD_INPUT = 2
# Figures are drawn into files, under the defaults of matplotlib.
OF_DRAWING = {"MPLBACKEND": "Agg", "MATPLOTLIBRC": os.devnull}
# HDF5 ends the process where it does not know them; results are in files of the usual kind.
OF_OTHER_FILES = ("HDF5_DRIVER", "HDF5_DRIVER_CONFIG", "HDF5_VOL_CONNECTOR")
# Read before the file that a variable names.
LOCAL_SETTINGS = "matplotlibrc"


def settle_variables() -> None:
    """Import JAX and set what other libraries will read; end the process with a line where a value cannot be used."""
    for name in OF_OTHER_FILES:
        os.environ.pop(name, None)
    _settle_drawing()
    _import_jax()
    flags = os.environ.get("XLA_FLAGS")
    # What begins with no - is the name of a file, and a pipe would be waited for.
    pipe = flags and os.path.exists(flags) and not os.path.isfile(flags)
    if flags and (pipe or not _xla_reads_flags()):
        _refuse(f"XLA_FLAGS must be flags that this version of XLA knows: got {flags}; unset it")


def _settle_drawing() -> None:
    os.environ |= OF_DRAWING
    # It would tell of a folder in which it cannot keep what it found of fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    styles = Path(os.environ.get("MPLCONFIGDIR") or os.path.join(home, "matplotlib"), "stylelib")
    for path in (Path(LOCAL_SETTINGS), *styles.glob("*.mplstyle")):
        if os.path.exists(path) and not _is_text(path):
            line = f"{path.name} must be a file of text in UTF-8, as matplotlib reads it: got {path.absolute()}"
            _refuse(f"{line}; rename it")


def _is_text(path: Path) -> bool:
    """Whether a file can be read as settings of matplotlib; it passes over a folder of the name of its own settings."""
    try:
        if path.is_file():  # A pipe would be waited for.
            path.read_text("utf-8")
            return True
    except (OSError, UnicodeDecodeError):
        return False
    return path.is_dir() and path.name == LOCAL_SETTINGS


def _import_jax() -> None:
    try:
        import jax  # noqa: F401
    except ValueError as error:
        wrong = [name for name in os.environ if name.startswith("JAX_") and name.lower() in str(error).lower()]
        if not wrong:
            raise
        _refuse(f"{wrong[0]} must be as JAX reads it: got {os.environ[wrong[0]]}; unset it")


def _xla_reads_flags() -> bool:
    """Whether XLA reads its flags: it ends the process where it does not, so another one tries, in 10 milliseconds."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Python warns of other threads, of which none is needed there.
            child = os.fork()
        if not child:
            _read_flags_and_end()
        _, status = os.waitpid(child, 0)
    except OSError:  # There is no room for a process, or nobody may wait for one.
        return True
    return status == 0


def _read_flags_and_end() -> NoReturn:
    with contextlib.suppress(BaseException):  # Only XLA itself is to end the process in another way.
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(silent, stream)
        from jaxlib.xla_client import CompileOptions

        CompileOptions().executable_build_options.debug_options  # noqa: B018
    os._exit(0)


def _refuse(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(BAD_INPUT)

"""What a setting is: a dataclass field with a default, a range, a unit and a sentence of help.

One declaration serves the Python defaults, the command line's help, the range checks and the labels of the results.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# The largest number of single precision.
LARGEST = float(np.finfo(np.float32).max)
# The largest whole number of int32, in which compiled programs count.
MOST = 2**31 - 1


class UserError(ValueError):
    """Input that breaks a rule: one line with the rule, the value received and the likely fix."""

    def __str__(self) -> str:
        # What was received may hold line breaks, or commands to a terminal.
        return "".join(one if one.isprintable() else repr(one)[1:-1] for one in super().__str__())


@dataclasses.dataclass(frozen=True)
class Range:
    """The admitted values of a setting.

    Args:
        low, high: bounds of a number; low_open and high_open exclude the bound itself.
        choices: the admitted words, where the setting is a word from a list.
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, str):
            return True
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return bool(above and below)

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.high == math.inf:
            return f"{'>' if self.low_open else '>='} {self.low:g}"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


TEXT = Range()
POSITIVE = Range(low=0, low_open=True)
NON_NEGATIVE = Range(low=0)
CLOSED_UNIT = Range(low=0, high=1)
HALF_OPEN_UNIT = Range(low=0, high=1, high_open=True)
AT_LEAST_ONE = Range(low=1)
TRUE_OR_FALSE = Range(low=0, high=1)


def one_of(choices: Iterable[str]) -> Range:
    """The range of a setting that is one word out of `choices`."""
    return Range(choices=tuple(choices))


def setting(default: Any, within: Range, help: str, unit: str = "1") -> Any:
    """A dataclass field that carries its range, its unit (as in UDUNITS, "1" for none) and its help sentence."""
    return _field(default, within, help, unit)


def static(default: Any, within: Range, help: str, unit: str = "1") -> Any:
    """A setting of a pytree that is part of its structure: jit compiles a program for each value of it."""
    return _field(default, within, help, unit, pytree_node=False)


def swept(default: Any, within: Range, help: str, unit: str = "1", off: float | None = None) -> Any:
    """A setting of a pytree that is a leaf of it: a number, or traced, so that one program serves every value.

    Args:
        default, within, help, unit: as in `setting`.
        off: the value that stands for "leave it out": where no lane of a program has another one, the leaf is None and
            its arithmetic is not compiled.
    """
    return _field(default, within, help, unit, pytree_node=True, off=off)


def _field(default: Any, within: Range, help: str, unit: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"range": within, "help": help, "unit": unit, **more})


def is_swept(field: dataclasses.Field) -> bool:
    """Whether a setting is a leaf that may vary inside one program."""
    return bool(field.metadata.get("pytree_node", False))


def settings_of(owner: Any) -> dict[str, dataclasses.Field]:
    """The settings of a dataclass by name."""
    return {field.name: field for field in dataclasses.fields(owner) if "range" in field.metadata}


def flag(name: str) -> str:
    """The command-line spelling of a setting: ema_decay -> --ema-decay."""
    return "--" + name.replace("_", "-")


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is none of the choices, with the nearest one."""
    names = sorted(choices)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name or repr(name)}: {hint}")


def nearest(path: Path, among: Iterable[Path]) -> str:
    """The likely fix for a path at which nothing is: the one that it resembles most."""
    paths = {other.name: other for other in among}
    near = difflib.get_close_matches(path.name, paths, n=1)
    return f"did you mean {paths[near[0]]}?" if near else "check the path"


def check(field: dataclasses.Field, value: Any) -> Any:
    """Return `value` in the setting's type, or raise UserError.

    Args:
        field: the setting, as made by `setting`; a tuple as its default says that it takes several values.
        value: a bool, int, float or str; text is read as the setting's type, so that a command line may pass it on.
    """
    if isinstance(field.default, tuple):
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not values:
            raise UserError(f"{field.name} needs at least one value: got none; leave it out for its default")
        return tuple(_check_value(field, type(field.default[0]), single) for single in values)
    return _check_value(field, type(field.default), value)


def _check_value(field: dataclasses.Field, kind: type, value: Any) -> Any:
    within, name = field.metadata["range"], field.name
    default = f"the default is {_words(field.default)}"
    try:
        if kind is bool:
            words = {"true": True, "false": False, "1": True, "0": False}
            result: Any = value if isinstance(value, bool) else words[str(value).lower()]
        elif kind in (int, float):
            # Python reads the digits of every script, and underscores between them.
            if isinstance(value, bool) or (isinstance(value, str) and ("_" in value or not value.isascii())):
                raise ValueError
            result = kind(value)
            if kind is int and not isinstance(value, str) and result != value:
                raise ValueError
            if kind is float and not (math.isfinite(result) and abs(result) <= LARGEST):
                raise ValueError
        elif isinstance(value, (str, os.PathLike)):
            result = str(value)
        else:
            raise TypeError
    except (KeyError, ValueError, TypeError, OverflowError):
        expected = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text"}[kind]
        raise UserError(f"{name} must be {expected}: got {value!r}; {default}") from None
    # Floats are trained with in single precision, so that is where they must lie in their range.
    if (float(np.float32(result)) if kind is float else result) not in within:
        if within.choices:
            near = difflib.get_close_matches(result, within.choices, n=1)
            raise UserError(
                f"{name} must be {within}: got {result!r}; {f'did you mean {near[0]}?' if near else default}"
            )
        raise UserError(f"{name} must be {within}: got {value}; {default}")
    if kind is int and within.low > -math.inf and result > MOST:
        raise UserError(f"{name} must be at most {MOST}: got {value}; {default}")
    return result


def _words(default: Any) -> str:
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values) or "empty"


def check_all(owner: Any) -> None:
    """Check every setting of a frozen dataclass instance and store it in its declared type."""
    for name, field in settings_of(owner).items():
        object.__setattr__(owner, name, check(field, getattr(owner, name)))


def as_json(owner: Any) -> Mapping[str, Any]:
    """The settings of a dataclass instance as plain values."""
    return {name: getattr(owner, name) for name in settings_of(owner)}

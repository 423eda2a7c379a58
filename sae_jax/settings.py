"""What a setting is: a dataclass field with a default, a range, a unit and a sentence of help.

One declaration serves the Python defaults, the command line's help, the range checks and the labels of the results.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import reprlib
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
        return printable(super().__str__())


def printable(text: str) -> str:
    """A text from elsewhere in one line: it may hold line breaks, or commands to a terminal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 400


def received(value: Any) -> str:
    """What somebody passed, in a few words: plain values as Python writes them, arrays by shape, others by kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        masked = "a masked" if isinstance(value, np.ma.MaskedArray) else "an"
        return f"{masked} array of shape {list(shape)} and dtype {value.dtype}"
    plain = (bool, int, float, complex, str, bytes, os.PathLike, np.generic, list, tuple, dict, set, range)
    if value is None or isinstance(value, plain) or hasattr(value, "dtype"):
        try:
            return _SHORT.repr(value)
        except ValueError:  # Python writes no whole number of so many.
            return "a number of thousands of digits"
    return (
        f"the function {value.__name__}"
        if callable(value) and hasattr(value, "__name__")
        else f"a {type(value).__name__}"
    )


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], rule: str, fix: str) -> None:
    """Refuse an argument that is of none of some types.

    Raises:
        UserError: "NAME must be RULE: got VALUE; FIX".
    """
    if not isinstance(value, kinds):
        raise UserError(f"{name} must be {rule}: got {received(value)}; {fix}")


def check_whole(name: str, value: Any, low: int = 1) -> None:
    """Refuse what is no whole number from `low` to the largest of int32.

    Raises:
        UserError: it is none.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= MOST:
        raise UserError(f"{name} must be a whole number in [{low}, {MOST}]: got {received(value)}; use an int")


def holds_reals(dtype: Any, kinds: str = "fiu") -> bool:
    """Whether arrays of a dtype, of any library, hold real numbers; kinds are NumPy's letters of those that count."""
    return getattr(dtype, "kind", "") in tuple(kinds) or str(dtype) == "bfloat16"


class SweepWarning(UserWarning):
    """Something about a sweep that its results should be read with, or that it would be faster without."""


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


# By a setting and its value, or several one after another, the names of those that have no effect beside all of these.
Unread = Mapping[tuple[Any, ...], tuple[str, ...]]


def unread(rules: Unread, values: Mapping[str, Any]) -> dict[str, str]:
    """The settings that have no effect beside the others, each with the first setting whose value says so.

    Args:
        rules: as `UNREAD` of a class of settings declares them.
        values: the value of every setting; of NAME:ARGUMENT the name alone counts.
    """
    plain = {name: one.partition(":")[0] if isinstance(one, str) else one for name, one in values.items()}
    met = {rule: all(plain.get(rule[i]) == rule[i + 1] for i in range(0, len(rule), 2)) for rule in rules}
    return {name: rule[0] for rule, names in rules.items() if met[rule] for name in names}


def flag(name: str) -> str:
    """The command-line spelling of a setting: ema_decay -> --ema-decay."""
    return "--" + name.replace("_", "-")


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is none of the choices, with the nearest one."""
    names = sorted(choices)
    check_type(kind, name, str, "a name", f"known: {', '.join(names)}")
    near = closest(name, names)
    hint = f"did you mean {near}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name or repr(name)}: {hint}")


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a word resembles most, whatever its case; None where it resembles none."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


def nearest(path: Path, among: Iterable[Path]) -> str:
    """The likely fix for a path at which nothing is: the one that it resembles most."""
    paths = {other.name: other for other in among}
    near = closest(path.name, paths)
    return f"did you mean {paths[near]}?" if near else "check the path"


def check(field: dataclasses.Field, value: Any, default: Any = None) -> Any:
    """Return `value` in the setting's type, or raise UserError.

    Args:
        field: the setting, as made by `setting`; a tuple as its default says that it takes several values.
        value: a bool, int, float or str; text is read as the setting's type, so that a command line may pass it on.
        default: what messages name, where it is another one than the setting's own.
    """
    default = field.default if default is None else default
    if isinstance(field.default, tuple):
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not values:
            raise UserError(f"{field.name} needs at least one value: got none; leave it out for its default")
        return tuple(_check_value(field, type(field.default[0]), single, default) for single in values)
    return _check_value(field, type(field.default), value, default)


def _check_value(field: dataclasses.Field, kind: type, value: Any, default: Any) -> Any:
    within, name = field.metadata["range"], field.name
    default = f"the default is {_words(default)}"
    try:
        if value is np.ma.masked:  # It would be read as what lies under the mask.
            raise ValueError
        if getattr(value, "ndim", 0):  # Python reads an array of one number as that number.
            raise ValueError
        if hasattr(value, "ndim"):
            value = value.item()
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
            result.encode()  # Or neither a log nor config.json could say it.
            if "\0" in result:  # No file has such a name.
                raise UserError(f"{name} must be text without NUL: got {received(result)}; rename what it names")
        else:
            raise TypeError
    except UnicodeEncodeError:
        raise UserError(f"{name} must be text in UTF-8: got {value!r}; rename what it names") from None
    except UserError:
        raise
    except Exception:  # Values of other libraries refuse to be read in their own ways.
        expected = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text"}[kind]
        raise UserError(f"{name} must be {expected}: got {received(value)}; {default}") from None
    shown = received(value) if isinstance(value, int) else value
    # Floats are trained with in single precision, so that is where they must lie in their range.
    trained_with = float(np.float32(result)) if kind is float else result
    bounds = {name: float(np.float32(getattr(within, name))) for name in ("low", "high")} if kind is float else {}
    if trained_with not in dataclasses.replace(within, **bounds):
        if within.choices:
            near = closest(result, within.choices)
            raise UserError(f"{name} must be {within}: got {result!r}; {f'did you mean {near}?' if near else default}")
        rounded = f", which is {trained_with:g} in single precision" if result in within else ""
        raise UserError(f"{name} must be {within}: got {shown}{rounded}; {default}")
    if kind is int and within.low > -math.inf and result > MOST:
        raise UserError(f"{name} must be at most {MOST}: got {shown}; {default}")
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

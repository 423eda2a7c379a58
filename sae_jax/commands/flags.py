"""Command lines made from the settings' own declarations, and one way to fail."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from sae_jax.commands.cluster import Launch, end
from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC, MODELS
from sae_jax.settings import NON_NEGATIVE, TEXT, Range, UserError, check, flag, one_of, setting, settings_of, unknown
from sae_jax.sweeps.grid import fields_of
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.recovery import Interrupted
from sae_jax.training.config import TrainingSettings

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@dataclasses.dataclass(frozen=True)
class RunConfig(Engine):
    """Where a run's files go and what it runs on."""

    name: str = setting("", TEXT, "name of the run; empty is that of an unfinished run alike, or the command and time")
    runs: str = setting("runs", TEXT, "folder of all runs")
    resume: str = setting("", TEXT, "an unfinished run to resume: its folder, or its name among all runs")
    checkpoint_every: float = setting(60.0, NON_NEGATIVE, "time between checkpoints", "s")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name and self.resume:
            raise UserError(f"name must be left out beside resume: got {self.name} and {self.resume}; use one of them")
        if self.name and (self.name == ".." or self.name != Path(self.name).name):
            raise UserError(
                f"name must be that of a folder inside --runs: got {self.name}; leave out what is before the last /, "
                "or pass it to --runs"
            )


MODEL = setting(CLASSIC.name, one_of(MODELS), "what is trained")
GROUPS = {"training": TrainingSettings, "data": DataConfig, "run": RunConfig, "processes": Launch}
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "True|False"}


def parse(
    argv: Sequence[str], prog: str, description: str, defaults: Mapping[str, tuple[Any, ...]], several: bool
) -> tuple[RunConfig, dict[str, Any], int | tuple[int, ...]]:
    """Read a command line.

    Args:
        argv: its words, without the program's name.
        prog, description: for the help.
        defaults: values of settings whose default differs from their declaration.
        several: whether a setting may take several values, and seeds be asked for by number.

    Returns:
        (where the run goes, the model and values of its and every other setting of a sweep: a tuple where several
        were given, seeds: their number or themselves).

    Raises:
        UserError: a flag is unknown, repeated, lacks its value or has one out of range.
    """
    seed_flag, seed_help, seed_default = (
        ("seeds", "a number of seeds N for 0..N-1, or several seeds themselves", "4")
        if several
        else ("seed", "seed of initialisation and batches", "0")
    )
    groups = {"model": options_from({"model": MODEL}) + options_from(_model_fields(), defaults, several)}
    groups |= {
        group: options_of(owner, defaults, several and group not in ("run", "processes"))
        for group, owner in GROUPS.items()
    }
    groups["run"].insert(0, option(seed_flag, (seed_default,), seed_help, "INT", several))
    words = read(argv, prog, description, groups)
    seeds = _checked(_seed(int(seed_default)), seed_flag, words.pop(seed_flag), several)
    run = checked_settings(RunConfig, words)
    checked_settings(Launch, words)
    order = [word.lstrip("-").partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")]
    [model] = _checked(MODEL, "model", words["model"], several=False)
    fields = fields_of(MODELS[model])
    for name in _model_fields():
        if name in order and name not in fields:
            raise UserError(f"{flag(name)} is no setting of model {model}: got it beside --model {model}; leave it out")
    settings = {}
    for name, field in fields.items():
        values = _checked(field, name, words[name], several) if name in order or name in defaults else (field.default,)
        settings[name] = values[0] if len(values) == 1 else values
    # Swept settings come first, in the order of the command line, so that they are the axes in that order.
    ordered = sorted(settings, key=lambda name: order.index(name) if name in order else len(order))
    settings = {"model": model} | {name: settings[name] for name in ordered}
    return run, settings, seeds[0] if several and len(seeds) == 1 else seeds


def _model_fields() -> dict[str, dataclasses.Field]:
    """The settings that any model declares, by name; where several do, the help shows the first one's default."""
    fields: dict[str, dataclasses.Field] = {}
    for model in MODELS.values():
        fields = settings_of(model.Settings) | fields
    return fields


def read(
    argv: Sequence[str], prog: str, description: str, groups: Mapping[str, list[Any]]
) -> dict[str, tuple[str, ...]]:
    """The words given to every option of a command line.

    Args:
        argv: its words, without the program's name.
        prog, description: for the help.
        groups: by heading, options made by `option` and `options_of`.

    Raises:
        UserError: a flag is unknown or repeated, or a word has no flag.
    """
    types = [dataclasses.make_dataclass(group, options) for group, options in groups.items()]
    fields = [(owner.__name__, owner, dataclasses.field(default_factory=owner)) for owner in types]
    # The library has flags of its own, which write files.
    flags = [flag(name) for options in groups.values() for name, _, field in options if not field.metadata]
    for word in argv:
        if word.startswith("--") and word != "--help" and _flag_of(word) not in flags:
            raise unknown("flag", word.partition("=")[0], flags)
    _refuse_repeats(argv)
    whole: type[Any] = dataclasses.make_dataclass("options", fields)
    parsed, rest = tyro.cli(
        whole,
        args=list(argv),
        prog=prog,
        description=description,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    words = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    if rest:
        if rest[0].startswith("-"):
            raise unknown("flag", rest[0].partition("=")[0], flags)
        raise UserError(f"every value needs a flag before it: got {rest[0]!r}; see --help")
    return words


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks for the list of flags and for nothing else."""
    return "--help" in argv or "-h" in argv


def without(words: Sequence[str], argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words of a command line but for some options with their values: those named, and those that argv gives."""
    left_out = {flag(name) for name in names} | {_flag_of(word) for word in argv if word.startswith("--")}
    remaining, included = [], True
    for word in words:
        if word.startswith("--"):
            included = _flag_of(word) not in left_out
        if included:
            remaining.append(word)
    return remaining


def checked_settings(owner: type, words: Mapping[str, tuple[str, ...]]) -> Any:
    """A settings dataclass made of the words given to its options."""
    values = {}
    for name, field in settings_of(owner).items():
        several = isinstance(field.default, tuple)
        given = _checked(field, name, words[name], several)
        values[name] = given if several else given[0]
    return owner(**values)


def _seed(default: int) -> dataclasses.Field:
    """The declaration that a seed is checked by; how many there may be, and how large, is for the grid to say."""
    return settings_of(dataclasses.make_dataclass("Seed", [("seed", int, setting(default, Range(), "seed"))]))["seed"]


def options_of(owner: Any, defaults: Mapping[str, tuple[Any, ...]] | None = None, several: bool = False) -> list[Any]:
    """The options of a settings dataclass; further arguments are those of `options_from`."""
    return options_from(settings_of(owner), defaults, several)


def options_from(
    fields: Mapping[str, dataclasses.Field],
    defaults: Mapping[str, tuple[Any, ...]] | None = None,
    several: bool = False,
) -> list[Any]:
    """The options of some settings.

    Args:
        fields: their declarations by name.
        defaults: values of settings whose default differs from their declaration.
        several: whether every setting takes several values; those with a tuple as default always do.
    """
    options = []
    for name, field in fields.items():
        many = isinstance(field.default, tuple)
        declared: Any = field.default
        default = (defaults or {}).get(name, declared if many else (declared,))
        kind, unit = type(default[0]), field.metadata["unit"]
        within = "" if field.metadata["range"] is TEXT or kind is bool else f"; {field.metadata['range']}"
        text = field.metadata["help"] + within + (f" [{unit}]" if unit != "1" else "")
        values = tuple(f"{value:g}" if kind is float else str(value) for value in default)
        options.append(option(name, values, text, METAVARS[kind], several or many))
    return options


def option(
    name: str, default: tuple[str, ...], help: str, metavar: str, several: bool, positional: bool = False
) -> tuple[str, Any, Any]:
    """One option, its values as words; a positional one has no flag."""
    shown = " ".join(default) or "empty"
    annotation = Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help=help,
            help_behavior_hint="" if positional else f"(default: {shown})",
            metavar=f"{metavar} [{metavar} ...]" if several else metavar,
        ),
    ]
    field = dataclasses.field(default=default, metadata={"positional": True} if positional else None)
    return name, (tyro.conf.Positional[annotation] if positional else annotation), field


def _checked(field: dataclasses.Field, name: str, words: Sequence[str], several: bool) -> tuple[Any, ...]:
    if not words and isinstance(field.default, bool):
        return (True,)
    if not words:
        raise UserError(f"{flag(name)} needs a value: got none; see --help")
    if len(words) > 1 and not several:
        raise UserError(f"{flag(name)} takes one value: got {len(words)} ({' '.join(words)}); leave one")
    try:
        values = tuple(check(field, word) for word in words)
        return tuple(value[0] if isinstance(value, tuple) else value for value in values)
    except UserError as error:
        raise UserError(f"{flag(name)}: {error}") from None


def _refuse_repeats(argv: Sequence[str]) -> None:
    seen: set[str] = set()
    for word in argv:
        if word.startswith("--"):
            name = _flag_of(word)
            if name in seen:
                raise UserError(f"{name} must be given once: got it twice; several values follow one flag")
            seen.add(name)


def _flag_of(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line and exit code 2 on bad input, 130 when interrupted."""
    try:
        yield
    except UserError as error:
        end(error, BAD_INPUT, f"error: {error}")
    except Interrupted as error:
        end(error, 128 + (error.number or signal.SIGTERM), error.line)
    except KeyboardInterrupt as error:
        end(error, INTERRUPTED, "interrupted")
    except Exception as error:
        end(error, FAILED)

"""Command lines made from the settings' own declarations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro

from sae_jax.commands.cluster import Launch
from sae_jax.commands.help import FIRST, asks_for_help, options_type, print_help
from sae_jax.commands.plugin_flags import HELP as PLUGIN_HELP
from sae_jax.commands.plugin_flags import PLUGIN, data_fields, load_plugins, plugin_words
from sae_jax.commands.run_config import RunConfig
from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC, MODELS, OF_PRESETS, model_of
from sae_jax.models.presets import preset
from sae_jax.settings import TEXT, Range, UserError, check, flag, setting, settings_of, unknown, unread
from sae_jax.sweeps.grid import fields_of
from sae_jax.training.config import TrainingSettings

# Where a run goes, its settings (a tuple where several values), and its seeds.
Parsed = tuple[RunConfig, Mapping[str, Any], int | Sequence[int]]

ZIP = "settings whose values are paired, the first of each and so on, instead of crossed"
PRESET = setting("", TEXT, "published settings by name, such as gao; flags beside it change it; several are an axis")
GROUPS = {"training": TrainingSettings, "data": DataConfig, "run": RunConfig, "processes": Launch}
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "True|False"}


def parse(
    argv: Sequence[str],
    prog: str,
    description: str,
    defaults: Mapping[str, tuple[Any, ...]],
    several: bool,
    seeds: int = 4,
) -> tuple[RunConfig, dict[str, Any], int | tuple[int, ...]]:
    """Read a command line.

    Args:
        argv: its words, without the program's name.
        prog, description: for the help.
        defaults: values of settings whose default differs from their declaration.
        several: whether a setting may take several values, and seeds be asked for by number.
        seeds: how many there are where their number is not given.

    Returns:
        (where the run goes, the model and the settings that were given or have a default here: a tuple where several
        were given, seeds: their number or themselves).

    Raises:
        UserError: a flag is unknown, repeated, lacks its value or has one out of range.
    """
    seed_flag, seed_help, seed_default = (
        ("seeds", "a number of seeds N for 0..N-1, or several seeds themselves", str(seeds))
        if several
        else ("seed", "seed of initialisation and batches", "0")
    )
    load_plugins(argv)
    MODEL = setting(CLASSIC.name, TEXT, f"what is trained: {', '.join(MODELS)}, or one as topk:frozen=decoder")
    groups = {"model": options_from({"model": MODEL, "preset": PRESET, **_model_fields()}, defaults, several)}
    for group, owner in GROUPS.items():
        fields = data_fields() if owner is DataConfig else settings_of(owner)
        groups[group] = options_from(fields, defaults, several and group not in ("run", "processes"))
    groups["run"].insert(0, option(seed_flag, (seed_default,), seed_help, "INT", several))
    if several:
        groups["run"].insert(1, option("zip", (), ZIP, "TEXT", True))
    else:
        groups["run"] = [one for one in groups["run"] if one[0] != "extend"]
    words = {"extend": ("",), **read(argv, prog, description, groups, FIRST)}
    order = named_flags(argv)
    presets = _checked(PRESET, "preset", words["preset"], several)
    if presets != ("",) and presets[0] not in defaults:
        if "model" in order:
            raise UserError(
                f"a preset says what is trained: got {' '.join(presets)} beside --model {' '.join(words['model'])}; "
                "leave one out"
            )
        return parse(argv, prog, description, _published(presets, defaults), several, seeds)
    numbers = _checked(_seed(int(seed_default)), seed_flag, words.pop(seed_flag), several)
    run = checked_settings(RunConfig, words)
    checked_settings(Launch, words)
    before = ""
    if "model" not in order and presets == ("",) and any(name in order for name in _model_fields()):
        from sae_jax.commands.extending import model_before  # Help need not wait for what reads runs.

        before = model_before(run)
    names = (before,) if before else _checked(MODEL, "model", words["model"], several)
    model = names[0] if len(names) == 1 else names
    fields = {name: field for name, field in fields_of(model_of(model)).items() if name != "model"}
    for name in _model_fields():
        if name in order and name not in fields:
            beside = (run.extend or run.start_from) if before else f"--model {' '.join(names)}"
            raise UserError(
                f"{flag(name)} is no setting of model {' or '.join(names)}: got it beside {beside}; leave it out"
            )
    settings = {}
    for name, field in fields.items():
        if name in order or name in defaults:
            values = _checked(field, name, words[name], several, defaults.get(name))
            settings[name] = values[0] if len(values) == 1 else values
    # Swept settings come first, in the order of the command line, so that they are the axes in that order.
    ordered = sorted(settings, key=lambda name: order.index(name) if name in order else len(order))
    settings = {"model": model} | {name: settings[name] for name in ordered}
    if "zip" in order:
        if not words["zip"]:
            raise UserError("--zip needs the settings to pair: got none; see --help")
        settings["zip"] = tuple(name.replace("-", "_") for name in words["zip"])
    return run, settings, numbers[0] if several and len(numbers) == 1 else numbers


def _published(names: Sequence[str], defaults: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """A command's defaults with those of presets in their place: of one its settings, of several what is trained.

    What none of the presets reads has no default here: an axis of it would be of equal lanes.
    """
    every = [preset(name) for name in names]
    published = {setting for _, settings in every for setting in settings}
    ignored = set.intersection(*(_unread_by(model, settings) for model, settings in every))
    others = {name: values for name, values in defaults.items() if name not in published | ignored}
    if len(names) > 1:
        models = tuple(f"{OF_PRESETS}:{name}" if name in MODELS else name for name in names)
        return {**others, "model": models, names[0]: ()}
    [(model, settings)] = every
    return {**others, "model": (model,), **{name: (value,) for name, value in settings.items()}, names[0]: ()}


def _unread_by(model: str, settings: Mapping[str, Any]) -> set[str]:
    """What a model does not read beside these settings and the defaults of its others."""
    owner = MODELS[model].Settings
    defaults = {name: field.default for name, field in settings_of(owner).items()}
    return set(unread(owner.UNREAD, {**defaults, **settings}))


def _model_fields() -> dict[str, dataclasses.Field]:
    """The settings that any model declares, by name; where several do, the help shows the first one's default."""
    fields: dict[str, dataclasses.Field] = {}
    for model in MODELS.values():
        fields = settings_of(model.Settings) | fields
    return fields


def read(
    argv: Sequence[str], prog: str, description: str, groups: Mapping[str, list[Any]], first: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The words given to every option of a command line.

    Args:
        argv: its words, without the program's name.
        prog, description: for the help.
        groups: by heading, options made by `option` and `options_of`.
        first: names of the options that the help shows where not all are asked for; empty shows all.

    Raises:
        UserError: a flag is unknown or repeated, or a word has no flag.
        SystemExit: help was asked for, and is printed.
    """
    groups = {**groups, "plugins": [option(PLUGIN, ("",), PLUGIN_HELP, "FILE", True)]}
    first = (*first, *plugin_words()) if first else ()
    # The library has flags of its own, which write files.
    flags = [flag(name) for options in groups.values() for name, _, field in options if not field.metadata]
    for word in argv:
        if word.startswith("--") and word != "--help" and _flag_of(word) not in flags:
            raise unknown("flag", word.partition("=")[0], flags)
    if asks_for_help(argv):
        print_help(argv, prog, description, groups, first)
    _refuse_repeats(argv)
    named = {_flag_of(word) for word in argv if word.startswith("--")}
    # The library takes a millisecond or two for every option, most of which have their defaults.
    asked = {
        group: [one for one in options if one[2].metadata or flag(one[0]) in named] for group, options in groups.items()
    }
    parsed, rest = tyro.cli(
        options_type({group: options for group, options in asked.items() if options}),
        args=list(argv),
        prog=prog,
        description=description,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )
    words = {name: field.default for options in groups.values() for name, _, field in options}
    words |= {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    if rest:
        if rest[0].startswith("-"):
            raise unknown("flag", rest[0].partition("=")[0], flags)
        raise UserError(f"every value needs a flag before it: got {rest[0]!r}; see --help")
    return words


def named_flags(argv: Sequence[str]) -> list[str]:
    """The settings that a command line names, in its order."""
    return [word.lstrip("-").partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")]


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


def _checked(
    field: dataclasses.Field, name: str, words: Sequence[str], several: bool, default: tuple[Any, ...] | None = None
) -> tuple[Any, ...]:
    if not words and isinstance(field.default, bool):
        return (True,)
    if not words:
        raise UserError(f"{flag(name)} needs a value: got none; see --help")
    if len(words) > 1 and not several:
        raise UserError(f"{flag(name)} takes one value: got {len(words)} ({' '.join(words)}); leave one")
    try:
        values = tuple(check(field, word, default) for word in words)
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

"""What plug-ins declare, checked before any of it is registered."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from sae_jax.analysis.options import TASKS
from sae_jax.data import SOURCES, DataConfig
from sae_jax.data.tfds_images import WELL_KNOWN
from sae_jax.models import MODELS, OF_PRESETS, PRESETS
from sae_jax.models.base import Measure, Model, Parameter, Term
from sae_jax.models.base import Settings as ModelSettings
from sae_jax.plugins.parts import AddedTerm, Source, Task
from sae_jax.plugins.reserved import check_parameter, check_task
from sae_jax.settings import UserError, check, closest, is_swept, received, settings_of, unknown
from sae_jax.storage.plugin_list import KINDS, LOADED, provider
from sae_jax.sweeps.observers import OBSERVERS, Observer
from sae_jax.training.config import TrainingSettings
from sae_jax.training.evaluation import measures_of

NAME = re.compile(r"[a-z][a-z0-9_]*")
PARTS = "PARTS"
RECORDS = {"model": Model, "term": AddedTerm, "measure": Measure, "source": Source, "task": Task}
NO_FUNCTIONS = ("name", "Settings", "training", "choices", "missed")


def declared_by(plugin: str, module: Any, models: Mapping[str, Model]) -> dict[str, dict[str, Any]]:
    """The parts of a plug-in's module, by kind and name.

    Args:
        plugin: its name.
        module: in which PARTS is to be.
        models: those of other plug-ins that are about to be registered.

    Raises:
        UserError: it declares none, or one that is broken, or a name that another part has.
    """
    parts = getattr(module, PARTS, None)
    if not isinstance(parts, dict) or not parts:
        near = closest(PARTS, vars(module))
        got = "none" if parts is None else received(parts)
        fix = f"rename {near}" if parts is None and near else f"write {PARTS} = {{'mine': Model(...)}}"
        raise UserError(f"a plug-in must declare its parts by name in {PARTS}: got {got} in {plugin}; {fix}")
    declared: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for name, part in parts.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(
                f"names of parts must be of small letters, digits and _: got {received(name)} in {plugin}; rename it"
            )
        kind = next((kind for kind, record in RECORDS.items() if isinstance(part, record)), None)
        if kind is None and isinstance(part, type) and issubclass(part, Observer):
            kind = "observer"
        if kind is None:
            kinds = ", ".join(record.__name__ for record in RECORDS.values())
            raise UserError(
                f"a part must be a {kinds}, or a class derived from Observer: got {received(part)} as {name} in "
                f"{plugin}; see docs/plugins.md"
            )
        declared[kind][name] = part
    # Its own models, and then its terms may be for those of others.
    beside = {**declared, "model": {**models, **declared["model"]}}
    for kind, named in declared.items():
        for name, part in named.items():
            CHECKS[kind](f"{kind} {name} of {plugin}", name, part, beside)
    return declared


def _check_model(what: str, name: str, model: Model, declared: Mapping[str, Mapping[str, Any]]) -> None:
    if model.name != name:
        raise UserError(f"{what} must have the name under which it is declared: got {model.name}; use name={name!r}")
    _check_new(what, "model", name, [*MODELS, *PRESETS, OF_PRESETS])
    for field in Model._fields:
        given = getattr(model, field)
        if field not in NO_FUNCTIONS and not callable(given) and (field, given) != ("step_codes", None):
            raise UserError(f"{what} must have a function {field}: got {received(given)}; give one")
    missed = model.missed
    if not (isinstance(missed, tuple) and len(missed) == 2 and all(isinstance(words, str) for words in missed)):
        raise UserError(
            f"{what} must have as missed why a target is missed and what to try: got {received(missed)}; "
            "give ('', 'more steps')"
        )
    owner = model.Settings
    if not (isinstance(owner, type) and issubclass(owner, ModelSettings)):
        raise UserError(f"{what} must have Settings derived from sae_jax.models.base.Settings: got {received(owner)}")
    _check_settings(what, owner, of_model=True)
    _check_free(what, settings_of(owner), {"the training": TrainingSettings, "the data": DataConfig})
    for setting in settings_of(owner):
        _check_other_terms(what, setting)
    _check_training(what, model)
    settings = owner()
    if not isinstance(rule := model.active_rule(settings), str):
        raise UserError(f"{what}: active_rule must return words: got {received(rule)}; return 'code > 0'")
    for function, kind in (("terms", Term), ("parameters", Parameter)):
        made = getattr(model, function)(settings)
        if not isinstance(made, dict) or not made or not all(isinstance(one, kind) for one in made.values()):
            raise UserError(
                f"{what}: {function} must return a dict of {kind.__name__} by name: got {received(made)}; name one each"
            )
    for term in model.terms(settings):
        if not NAME.fullmatch(str(term)):
            raise UserError(f"names of terms must be of small letters, digits and _: got {term} of {what}; rename it")
    for parameter, one in model.parameters(settings).items():
        check_parameter(what, parameter, model)
        if not isinstance(one.dims, tuple) or not set(one.dims) <= {"unit", "input", "target"}:
            raise UserError(
                f"{what}: dims of parameters must be among unit, input and target: got {received(one.dims)} of "
                f"{parameter}; use ('unit',)"
            )
    if not any("input" in parameter.dims for parameter in model.parameters(settings).values()):
        got = ", ".join(model.parameters(settings))
        raise UserError(
            f"{what} must have a parameter along input, by which its lanes know the width of samples: got {got}; give "
            "one the dims ('unit', 'input')"
        )


def _check_training(what: str, model: Model) -> None:
    """Refuse defaults of the training that are none, and an axis of models."""
    if model.choices:
        raise UserError(f"{what} must be one model: got choices {received(model.choices)}; leave them out")
    pairs, fields = model.training, settings_of(TrainingSettings)
    if not isinstance(pairs, tuple) or not all(isinstance(one, tuple) and len(one) == 2 for one in pairs):
        raise UserError(
            f"training of {what} must be pairs (setting, value): got {received(pairs)}; use (('steps', 9),)"
        )
    for name, value in pairs:
        if name not in fields:
            raise UserError(f"training of {what}: {unknown('setting', str(name), fields)}")
        try:
            check(fields[name], value)
        except UserError as error:
            raise UserError(f"training of {what}: {error}") from None


def _check_term(what: str, name: str, term: AddedTerm, declared: Mapping[str, Mapping[str, Any]]) -> None:
    if not callable(term.compute):
        raise UserError(f"{what} must have a function compute: got {received(term.compute)}; give one")
    if not isinstance(term.curve, Term):
        raise UserError(f"{what} must have a Term as its curve: got {received(term.curve)}; use Term(label, units)")
    fields = {name: term.weight, **term.settings}
    owner = type("Settings", (), {"__annotations__": dict.fromkeys(fields, Any), **_copies(what, fields)})
    _check_settings(what, dataclasses.dataclass(owner), of_model=True)
    if not is_swept(term.weight) or term.weight.metadata["off"] != 0 or term.weight.default != 0:
        raise UserError(
            f"the weight of {what} must be off unless it is given: got a default of {term.weight.default}; use "
            "swept(0.0, NON_NEGATIVE, '...', off=0.0)"
        )
    every = {**MODELS, **declared["model"]}
    for setting in fields:
        _check_other_terms(what, setting)
    _check_free(what, fields, {"the training": TrainingSettings, "the data": DataConfig})
    _check_free(what, fields, {f"model {one}": model.Settings for one, model in every.items()})
    for model in term.models:
        if model not in every:
            raise UserError(f"models of {what} must be among {', '.join(every)}: got {received(model)}; name another")
        if name in every[model].terms(every[model].Settings()):
            raise UserError(f"terms must have names of their own: got {what}, which model {model} has; rename it")
    others = {**declared["term"]}
    others.pop(name)
    for other, one in others.items():
        if same := set(fields) & {other, *one.settings}:
            raise UserError(f"settings must have names of their own: got {min(same)} of {what}, also of term {other}")


def _check_measure(what: str, name: str, measure: Measure, declared: Mapping[str, Mapping[str, Any]]) -> None:
    if not callable(measure.compute):
        raise UserError(f"{what} must have a function compute: got {received(measure.compute)}; give one")
    if not isinstance(measure.label, str) or not isinstance(measure.units, str):
        raise UserError(f"{what} must have a label and units in words: got {received(measure.label)}; give both")
    if not isinstance(measure.dims, tuple) or not set(measure.dims) <= {"unit", "input"}:
        raise UserError(f"dims of {what} must be among unit and input: got {received(measure.dims)}; use ('unit',)")
    known: dict[str, None] = {}
    for model in (*MODELS.values(), *declared["model"].values()):
        known |= dict.fromkeys(measures_of(model, model.Settings()))
    _check_new(what, "measure", name, known)


def _check_source(what: str, name: str, source: Source, declared: Mapping[str, Mapping[str, Any]]) -> None:
    _check_new(what, "source", name, [*SOURCES, *WELL_KNOWN])
    if not callable(source.read):
        raise UserError(f"{what} must have a function read: got {received(source.read)}; give one")
    if not isinstance(source.help, str) or not source.help:
        raise UserError(f"{what} must have its help in words: got {received(source.help)}; say what rows it reads")
    if source.Settings is not None:
        _check_settings(what, source.Settings)


def _check_task(what: str, name: str, task: Task, declared: Mapping[str, Mapping[str, Any]]) -> None:
    _check_new(what, "task", name, [*TASKS, "units"])
    check_task(what, name, [*MODELS.values(), *declared["model"].values()], declared["task"])
    for function in ("measure", "draw"):
        if not callable(getattr(task, function)):
            raise UserError(f"{what} must have a function {function}: got {received(getattr(task, function))}")
    if not isinstance(task.SCORE, str) or not task.SCORE.startswith(f"{name}_"):
        raise UserError(f"SCORE of {what} must begin with {name}_: got {received(task.SCORE)}; rename the variable")
    _check_settings(what, task.Settings)


def _check_observer(what: str, name: str, owner: type, declared: Mapping[str, Mapping[str, Any]]) -> None:
    _check_new(what, "observer", name, OBSERVERS)
    Settings = getattr(owner, "Settings", None)
    if Settings is not None:
        _check_settings(what, Settings)
    try:
        inspect.signature(owner).bind(*([] if Settings is None else [Settings]))
    except TypeError as error:
        given = "nothing" if Settings is None else "its Settings"
        raise UserError(f"{what} must be made of {given}: got {error}; correct its __init__") from None


def _check_new(what: str, kind: str, name: str, known: Any) -> None:
    """Refuse a name that another part of the same kind has, whoever declares it."""
    if name in known:
        other = provider(kind, name)
        whose = f"also in {other.path}" if other else f"also {kind} {name} of sae_jax"
        raise UserError(f"names of parts must be new: got {what}, {whose}; rename it")


def _check_free(what: str, names: Any, others: Mapping[str, type]) -> None:
    """Refuse settings of names that others have."""
    for whose, owner in others.items():
        if same := [name for name in names if name in settings_of(owner)]:
            raise UserError(
                f"settings must have names of their own: got {same[0]} of {what}, also of {whose}; rename it"
            )


def _check_other_terms(what: str, setting: str) -> None:
    """Refuse a setting that a term of another plug-in has."""
    for plugin in LOADED.values():
        for name, term in plugin.declared["term"].items():
            if setting in (name, *term.settings):
                raise UserError(
                    f"settings must have names of their own: got {setting} of {what}, also of term {name} in "
                    f"{plugin.path}; rename it"
                )


def _copies(what: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    for name, field in fields.items():
        if not isinstance(field, dataclasses.Field) or "pytree_node" not in field.metadata:
            raise UserError(
                f"settings of {what} must be made by sae_jax.settings.swept or static: got {received(field)} as {name}"
            )
    return {name: dataclasses.field(default=one.default, metadata=dict(one.metadata)) for name, one in fields.items()}


def _check_settings(what: str, owner: Any, of_model: bool = False) -> None:
    """Refuse settings that are no declarations, or whose defaults are out of their ranges."""
    if not (isinstance(owner, type) and dataclasses.is_dataclass(owner)):
        raise UserError(f"settings of {what} must be a dataclass: got {received(owner)}; put @dataclass above it")
    made = "swept or static" if of_model else "setting"
    for field in dataclasses.fields(owner):
        if "range" not in field.metadata or (of_model and "pytree_node" not in field.metadata):
            raise UserError(f"settings of {what} must be made by sae_jax.settings.{made}: got {field.name}; declare it")
        default: Any = field.default
        if not isinstance(default, (bool, int, float, str, tuple)):
            raise UserError(f"settings of {what} must have defaults: got {received(default)} for {field.name}")
        if not NAME.fullmatch(field.name):
            raise UserError(f"names of settings must be of small letters, digits and _: got {field.name} of {what}")
        try:
            check(field, default)
        except UserError as error:
            raise UserError(f"{what}: {error}") from None


CHECKS: Mapping[str, Callable[..., None]] = {
    "model": _check_model,
    "term": _check_term,
    "measure": _check_measure,
    "source": _check_source,
    "task": _check_task,
    "observer": _check_observer,
}

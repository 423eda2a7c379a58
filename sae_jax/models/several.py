"""Several architectures as one record, so that the architecture is a setting, and an axis like any other."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import struct

from sae_jax.models import base
from sae_jax.models.base import Evaluated, Loss, Measure, Model, Params, Step, codes_of_step
from sae_jax.settings import UserError, check, is_swept, one_of, settings_of, static

JOINED = "+"
# What a record has of functions whose last argument is the settings.
BY_SETTINGS = (
    *("parameters", "terms", "init", "statistics", "place", "encode", "decode", "active", "active_rule", "loss"),
    *("memory", "update", "recall", "finish", "gradient", "constrain", "rates", "renew", "ramp", "arrays"),
    *("outputs", "bypass"),
)


@functools.lru_cache(maxsize=64)
def several(models: tuple[Model, ...]) -> Model:
    """A record whose setting `model` says which of some models a lane is.

    It has every setting of each. Those that a model does not have are not read where it is chosen, so that lanes which
    differ in nothing else are trained once. A setting whose defaults differ is, where it is not given, that of each.

    Args:
        models: the architectures, of different names.

    Raises:
        UserError: a name is there twice, or models declare a setting of one name as different kinds.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UserError(f"model must not name one twice: got {', '.join(names)}; leave one")
    Settings = _settings_of(models)

    def dispatched(function: str) -> Any:
        def call(*arguments: Any) -> Any:
            model, settings = chosen(models, arguments[-1])
            return getattr(model, function)(*arguments[:-1], settings)

        return call

    def measures(s: Any) -> dict[str, Measure]:
        model, settings = chosen(models, s)
        return {name: _dispatched_measure(models, measure) for name, measure in model.measures(settings).items()}

    def check_settings(s: Any) -> None:
        model, settings = chosen(models, s)
        _check_ranges(model, settings)
        model.check(settings)

    def check_data(s: Any, low: float, high: float) -> None:
        model, settings = chosen(models, s)
        model.check_data(settings, low, high)

    functions = {function: dispatched(function) for function in BY_SETTINGS}

    def sparse(loss: Loss, s: Any) -> Loss | None:
        model, settings = chosen(models, s)
        sparse_loss = model.sparse(model.loss, settings) if loss is functions["loss"] else None
        return None if sparse_loss is None else _dispatched_loss(models, sparse_loss)

    def step_codes(params: Params, step: Step, s: Any) -> Any:
        model, settings = chosen(models, s)
        return codes_of_step(model, params, step, settings)

    trained = [dict(model.training) for model in models]
    shared = tuple(pair for pair in models[0].training if all(pair in one.items() for one in trained))
    return Model(
        name=JOINED.join(names),
        Settings=Settings,
        measures=measures,
        check=check_settings,
        check_data=check_data,
        training=shared,
        sparse=sparse,
        step_codes=step_codes,
        choices=models,
        **functions,
    )


def chosen(models: tuple[Model, ...], s: Any) -> tuple[Model, Any]:
    """The model that settings choose, and its own settings.

    What is off in that model is None, whatever it is in the others.

    Raises:
        UserError: a value is a fraction where that model counts.
    """
    model = next(one for one in models if one.name == s.model)
    values, shared = {}, settings_of(type(s))
    for name, field in settings_of(model.Settings).items():
        value = getattr(s, name)
        kind: Any = type(field.default)
        off = field.metadata.get("off")
        if value is None and off is None:  # What leaves a term of another model out is a number of this one.
            value = shared[name].metadata["off"]
        if off is not None and not is_swept(shared[name]) and value == off:
            value = None
        if kind is int and not is_swept(field) and value != int(value):
            raise UserError(f"{name} of {model.name} must be a whole number: got {value:g}; use {round(value)}")
        values[name] = value if is_swept(field) else kind(value)
    return model, model.Settings(**values)


def _check_ranges(model: Model, settings: Any) -> None:
    """Refuse what others of several models take and this one does not."""
    for name, field in settings_of(model.Settings).items():
        value = getattr(settings, name)
        for one in () if value is None else np.unique(value).tolist():
            try:
                check(field, one)
            except UserError as error:
                raise UserError(f"model {model.name}: {error}") from None


def defaults_of(model: Model, training: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Of several models, the settings whose defaults differ: each model's own, or the first's where it has none.

    Args:
        model: their record.
        training: default of every setting of the training.
    """
    differing: dict[str, tuple[Any, ...]] = {}
    for name, field in settings_of(model.Settings).items():
        if name != "model":
            fields = [settings_of(one.Settings).get(name, field) for one in model.choices]
            differing[name] = tuple(one.default for one in fields)
    for name, value in training.items():
        differing[name] = tuple(dict(one.training).get(name, value) for one in model.choices)
    return {name: defaults for name, defaults in differing.items() if len(set(defaults)) > 1}


def _settings_of(models: tuple[Model, ...]) -> type[base.Settings]:
    names = [model.name for model in models]
    fields: dict[str, Any] = {"model": static(names[0], one_of(names), "what is trained")}
    for model in models:
        for name, field in settings_of(model.Settings).items():
            fields[name] = _common(name, fields[name], field) if name in fields else field
    body = {name: dataclasses.field(default=one.default, metadata=dict(one.metadata)) for name, one in fields.items()}
    kinds = {name: type(one.default) if not is_swept(one) else Any for name, one in fields.items()}
    owner = type("Settings", (base.Settings,), body | {"__annotations__": kinds, "__doc__": "Settings."})
    return struct.dataclass(owner)


def _common(name: str, one: Any, other: Any) -> Any:
    """The declaration of a setting that two models have: static where either is, and of every word of both."""
    same = type(one.default) is type(other.default) or {type(one.default), type(other.default)} == {int, float}
    if not same:
        raise UserError(
            f"models must mean the same by {name}: got a {type(one.default).__name__} and a "
            f"{type(other.default).__name__}; sweep them one by one"
        )
    first = one if not is_swept(one) else other if not is_swept(other) else one
    metadata = dict(first.metadata) | {"help": _common_words(one.metadata["help"], other.metadata["help"])}
    choices = dict.fromkeys((*one.metadata["range"].choices, *other.metadata["range"].choices))
    if choices:
        metadata["range"] = one_of(choices)
    if is_swept(first):
        offs = {one.metadata["off"], other.metadata["off"]} - {None}
        metadata["off"] = offs.pop() if len(offs) == 1 else None
    return dataclasses.field(default=one.default, metadata=metadata)


def _common_words(one: str, other: str) -> str:
    """What two descriptions begin with, where that is several words; else the first one."""
    pairs = itertools.takewhile(
        lambda pair: pair[0].strip(",:;") == pair[1].strip(",:;"), zip(one.split(), other.split(), strict=False)
    )
    words = [word for word, _ in pairs]
    return " ".join(words).rstrip(",:;") if len(words) > 1 else one


@functools.lru_cache(maxsize=64)
def _dispatched_loss(models: tuple[Model, ...], loss: Loss) -> Loss:
    return lambda params, memory, step, s: loss(params, memory, step, chosen(models, s)[1])


def _dispatched_measure(models: tuple[Model, ...], measure: Measure) -> Measure:
    def compute(lane: Evaluated) -> Any:
        return measure.compute(lane._replace(settings=chosen(models, lane.settings)[1]))

    return measure._replace(compute=compute)

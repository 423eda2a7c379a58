"""Architectures whose settings start elsewhere, as records of their own: presets, and batch_topk:frozen=decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import struct

from sae_jax.models.base import Model
from sae_jax.settings import UserError, check, is_swept, settings_of, unknown

SEPARATOR = ":"


def variant(model: Model, name: str, settings: Mapping[str, Any]) -> Model:
    """The record of an architecture of which some settings have other defaults.

    Args:
        model: the architecture.
        name: of the variant.
        settings: defaults by name, of the model or of its training.

    Raises:
        UserError: a value is out of its setting's range.
    """
    fields = settings_of(model.Settings)
    changed = {one: check(fields[one], value) for one, value in settings.items() if one in fields}
    body = {one: dataclasses.field(default=value, metadata=fields[one].metadata) for one, value in changed.items()}
    kinds = {one: Any if is_swept(fields[one]) else type(value) for one, value in changed.items()}
    owner = type("Settings", (model.Settings,), {**body, "__annotations__": kinds, "__doc__": model.Settings.__doc__})
    training = tuple((one, value) for one, value in settings.items() if one not in fields)
    return model._replace(name=name, Settings=struct.dataclass(owner), training=training)


def settings_in(text: str, model: Model) -> dict[str, Any]:
    """The settings that a variant's name gives, as in frozen=decoder,rows=unit; a value may hold commas itself.

    Args:
        text: what stands behind the architecture's name.
        model: the architecture.

    Raises:
        UserError: a word has no value, or a name is no setting of the model.
    """
    fields, settings, last = settings_of(model.Settings), dict[str, Any](), ""
    for word in text.split(","):
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if equals and name in settings:
            raise UserError(f"a variant of a model must set {name} once: got {text}; leave one")
        if equals and name in fields:
            settings[name], last = value, name
        elif last and not equals:
            settings[last] += f",{word}"
        elif equals:
            raise unknown(f"setting of model {model.name}", name, fields)
        else:
            raise UserError(
                f"a variant of a model must give its settings values: got {model.name}{SEPARATOR}{text}; "
                f"use {model.name}{SEPARATOR}NAME=VALUE"
            )
    return settings

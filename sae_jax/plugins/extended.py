"""Models with the terms and measures that plug-ins add to them, and with checks of what their functions return."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from sae_jax.models import ARCHITECTURES
from sae_jax.models.base import Evaluated, Loss, Measure, Model, Params, Step, Term, codes_of_step
from sae_jax.models.linear import widened
from sae_jax.plugins.parts import AddedTerm
from sae_jax.plugins.returned import check_shape, checked_functions
from sae_jax.settings import UserError, is_swept

# By name, the plug-in that declares a part, and the part.
Terms = Mapping[str, tuple[str, AddedTerm]]
Measures = Mapping[str, tuple[str, Measure]]


def checked_model(plugin: str, model: Model) -> Model:
    """The record of a plug-in's model, as the registry holds it.

    What its functions return is checked. What it does not read it must say itself: of settings that another
    model does not read nothing is believed.

    Args:
        plugin: its name.
        model: as declared.
    """
    of_another = model.Settings in [one.Settings for one in ARCHITECTURES] or "UNREAD" not in vars(model.Settings)
    unread: dict[str, Any] = {"UNREAD": {}} if of_another else {}
    settings = _settings(model, {}, unread | {"PARTS": {"model": (model.name,)}})
    of_package = any(model.loss is one.loss for one in ARCHITECTURES)
    loss = model.loss if of_package else _checked_loss(plugin, model)
    return checked_functions(plugin, model)._replace(Settings=settings, loss=loss)


def extended(model: Model, terms: Terms, measures: Measures) -> Model:
    """A model with terms and measures; the same record where there are none for it.

    Args:
        model: to be extended.
        terms: those for other models are passed over.
        measures: of every model.
    """
    extra_terms = {name: one for name, one in terms.items() if model.name in one[1].models}
    if not extra_terms and not measures:
        return model
    parts = {**model.Settings.PARTS, "term": tuple(extra_terms), "measure": tuple(measures)}
    fields = {
        setting: field
        for name, (_, term) in extra_terms.items()
        for setting, field in {name: term.weight, **term.settings}.items()
    }
    unread = {(name, 0): tuple(term.settings) for name, (_, term) in extra_terms.items() if term.settings}
    settings = _settings(model, fields, {"PARTS": parts, "UNREAD": {**model.Settings.UNREAD, **unread}})
    checked = {name: _checked_measure(plugin, name, one) for name, (plugin, one) in measures.items()}
    made = model._replace(Settings=settings, measures=lambda s: {**model.measures(s), **checked})
    return _with_terms(made, model, extra_terms) if extra_terms else made


def _with_terms(made: Model, model: Model, extra_terms: Terms) -> Model:
    def on(s: Any) -> Terms:
        return {name: one for name, one in extra_terms.items() if getattr(s, name) is not None}

    def terms(s: Any) -> dict[str, Term]:
        return model.terms(s) | {name: term.curve for name, (_, term) in on(s).items()}

    def loss(params: Params, memory: Any, step: Step, s: Any) -> tuple[dict[str, Array], Any]:
        values, seen = model.loss(params, memory, step, s)
        added = on(s)
        if added:
            codes = _codes(model, params, step, s, next(iter(added.items())))
            values = {**values, **{name: _added(*one, params, codes, step, s) for name, one in _named(added)}}
        return values, seen

    def sparse(given: Loss, s: Any) -> Loss | None:
        return model.sparse(model.loss, s) if given is loss and not on(s) else None

    def arrays(s: Any) -> int:
        return model.arrays(s) + len(on(s))

    return made._replace(terms=terms, loss=loss, sparse=sparse, arrays=arrays)


def _named(added: Terms) -> list[tuple[str, tuple[str, str, AddedTerm]]]:
    return [(name, (plugin, name, term)) for name, (plugin, term) in added.items()]


def _codes(model: Model, params: Params, step: Step, s: Any, first: tuple[str, tuple[str, AddedTerm]]) -> Array:
    """Codes of a step, in float32 where it stores them in fewer bits."""
    try:
        return widened(codes_of_step(model, params, step, s))
    except KeyError as error:
        missing = error.args[0] if error.args else None
        if missing in params or missing not in model.parameters(s):
            raise  # It is none of a parameter.
        name, (plugin, _) = first
        raise UserError(
            f"term {name} of {plugin} needs the codes of lanes that are trained: got model {model.name}, which knows "
            f"{missing} at the end alone; leave the model out, or give it step_codes"
        ) from None


def _added(plugin: str, name: str, term: AddedTerm, params: Params, codes: Array, step: Step, s: Any) -> Array:
    """A term's value, its weight included."""
    settings = types.SimpleNamespace(**{one: getattr(s, one) for one in term.settings})
    value = term.compute(codes, params, step, settings)
    check_shape(f"term {name} of {plugin}", value, (), "the mean over the samples")
    return getattr(s, name) * jnp.asarray(value)


def _checked_measure(plugin: str, name: str, measure: Measure) -> Measure:
    def compute(lane: Evaluated) -> Array:
        value = measure.compute(lane)
        sizes = {"unit": lane.settings.d_hidden, "input": lane.x.shape[1]}
        dims = ", ".join(measure.dims) or "none, a number for each lane"
        check_shape(f"measure {name} of {plugin}", value, tuple(sizes[dim] for dim in measure.dims), f"dims {dims}")
        return value

    return measure._replace(compute=compute)


def _checked_loss(plugin: str, model: Model) -> Loss:
    def loss(params: Params, memory: Any, step: Step, s: Any) -> tuple[dict[str, Array], Any]:
        what, returned = f"loss of model {model.name} of {plugin}", model.loss(params, memory, step, s)
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], Mapping):
            raise UserError(
                f"{what} must return (its terms by name, what update is to see): got a {type(returned).__name__}; "
                "return terms, None"
            )
        names = [*model.terms(s)]
        if sorted(returned[0]) != sorted(names):
            raise UserError(
                f"{what} must return the terms that terms declares, {', '.join(names)}: got "
                f"{', '.join(map(str, returned[0])) or 'none'}; name them alike"
            )
        for name, value in returned[0].items():
            check_shape(f"term {name} of the {what}", value, (), "the mean over the samples")
        return returned

    return loss


def _settings(model: Model, fields: Mapping[str, Any], body: Mapping[str, Any]) -> type[Any]:
    """The settings of a model with further ones, and with other attributes of the class."""
    kinds = {name: Any if is_swept(field) else type(field.default) for name, field in fields.items()}
    more = {"__annotations__": kinds, "__doc__": model.Settings.__doc__}
    return struct.dataclass(type("Settings", (model.Settings,), {**_copied(fields), **body, **more}))


def _copied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Declarations for one more dataclass: one that has been in another belongs to it."""
    return {name: dataclasses.field(default=one.default, metadata=dict(one.metadata)) for name, one in fields.items()}

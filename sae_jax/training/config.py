"""Settings of a training, whatever is trained, and the settings of a lane: its model with these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import struct

from sae_jax.data.corruption import CORRUPTIONS, check_levels
from sae_jax.models import Model, model_of, refuse_overridden
from sae_jax.models.several import chosen
from sae_jax.settings import (
    AT_LEAST_ONE,
    CLOSED_UNIT,
    HALF_OPEN_UNIT,
    MOST,
    NON_NEGATIVE,
    POSITIVE,
    Range,
    Unread,
    UserError,
    check,
    check_type,
    is_swept,
    one_of,
    received,
    settings_of,
    static,
    swept,
    unknown,
)
from sae_jax.training.optimizers import OPTIMIZERS

# What an optimizer did before there was a setting of it, where its default is something else.
BEFORE = {"lbfgs": {"history_size": 10}}


@struct.dataclass
class TrainingSettings:
    """Optimizer, schedules, batches, stopping, and the noise on the encoder's inputs."""

    UNREAD: ClassVar[Unread] = {
        ("corruption", "none"): ("noise",),
        ("optimizer", "adam"): ("momentum", "history_size"),
        ("optimizer", "sgd"): ("history_size",),
        # Its line search sets the size of a step, on all samples.
        ("optimizer", "lbfgs"): (
            *("momentum", "learning_rate", "warmup", "final_learning_rate", "clip_norm", "batch_size"),
        ),
    }
    learning_rate: Any = swept(7e-3, POSITIVE, "learning rate at the end of the warm-up")
    warmup: Any = swept(0.05, CLOSED_UNIT, "fraction of the steps over which the learning rate rises linearly")
    final_learning_rate: Any = swept(0.0, CLOSED_UNIT, "cosine decay ends at this fraction of the learning rate")
    clip_norm: Any = swept(0.0, NON_NEGATIVE, "gradients are scaled down to this global norm; 0 is off")
    momentum: Any = swept(0.9, HALF_OPEN_UNIT, "momentum of optimizer sgd")
    noise: Any = swept(0.0, NON_NEGATIVE, "level of the corruption: standard deviation, or probability up to 1")
    corruption: str = static("none", one_of(CORRUPTIONS), "noise on the encoder's inputs, at level --noise")
    optimizer: str = static("adam", one_of(OPTIMIZERS), "Adam, SGD with momentum, or full-batch L-BFGS")
    batch_size: int = static(128, AT_LEAST_ONE, "samples in a minibatch; lbfgs takes all samples", "sample")
    steps: int = static(
        20_000,
        NON_NEGATIVE,
        "training steps; left out, lbfgs takes 400 iterations; 0 measures what start_from names",
        "step",
    )
    history_size: int = static(
        0,
        Range(0, 1000),
        "steps that lbfgs remembers; 0 is 100, or as many as 1 GiB holds of a lane's, but at least 10",
        "step",
    )
    snapshots: int = static(
        0, Range(0, 200), "moments of the training, evenly apart, at which seeds' decoder rows are compared; 0 is none"
    )
    patience: int = static(
        0,
        NON_NEGATIVE,
        "a lane stops once its held-out loss has not fallen for this many steps, and keeps its best parameters; looked "
        "at where curves are logged, at most 200 times, from the end of the warm-ups on; 0 is off",
        "step",
    )


@struct.dataclass
class LaneSettings:
    """Everything that training one lane reads: a pytree whose leaves are the swept settings, scalars or [lanes].

    Attributes:
        architecture: the model, part of the structure.
        model: the model's own settings.
        training: those of the training.
    """

    architecture: Model = struct.field(pytree_node=False)
    model: Any
    training: TrainingSettings


def declared(model: Model) -> dict[str, dataclasses.Field]:
    """The settings of a lane of a model, by name."""
    return settings_of(model.Settings) | settings_of(TrainingSettings)


def before_named(fields: Mapping[str, dataclasses.Field], optimizers: Iterable[str]) -> dict[str, Any]:
    """What settings were in a run of an earlier version, which had fewer of them, wherever it does not name them.

    Args:
        fields: the declarations of all settings, by name.
        optimizers: those that the run was trained with.
    """
    values = {name: field.default for name, field in fields.items()}
    for optimizer in optimizers:
        values |= BEFORE.get(optimizer, {})
    return values


def lane_settings(model: str | Model = "classic", **values: Any) -> LaneSettings:
    """Settings of one lane, checked; what is not given has its default, what is off is None.

    Args:
        model: the name of a model, or the record itself.
        values: any setting of the model and of the training.

    Raises:
        UserError: a name is unknown, a value is out of range, or values do not go together.
    """
    architecture = model_of(model)
    refuse_overridden(architecture, values)
    fields = declared(architecture)
    for name in values:
        if name not in fields:
            raise unknown("setting", name, fields)
    checked = {name: check(fields[name], value) for name, value in values.items()}
    settings = from_values(architecture, defaults_beside(architecture, checked) | checked)
    check_settings(settings)
    return settings


def defaults_beside(architecture: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the settings that are not given, by name: an optimizer may have its own number of steps.

    Args:
        architecture: the model.
        given: values by name, a tuple where there are several.

    Raises:
        UserError: the steps are left out where optimizers take different numbers of them.
    """
    fields, trained = declared(architecture), dict(architecture.training)
    defaults: dict[str, Any] = {
        name: trained.get(name, field.default) for name, field in fields.items() if name not in given
    }
    if "steps" in defaults:
        names = _optimizers(given)
        numbers = {OPTIMIZERS[name].steps or defaults["steps"] for name in names}
        if len(numbers) > 1:
            raise UserError(
                f"steps must be given where optimizers take different numbers of them: got {', '.join(names)} and no "
                f"steps; use steps {max(numbers)}, or one optimizer"
            )
        [defaults["steps"]] = numbers
    return defaults


def check_given(given: Mapping[str, Any]) -> None:
    """Refuse checked settings that a user gave and nothing would read; a record names all settings.

    Raises:
        UserError: there is one.
    """
    names = _optimizers(given)
    if "batch_size" in given and all(OPTIMIZERS[name].full_batch for name in names):
        raise UserError(
            f"batch_size must be left out beside optimizer {', '.join(names)}, which takes all samples at every step: "
            f"got {given['batch_size']}; use adam or sgd for minibatches"
        )


def _optimizers(given: Mapping[str, Any]) -> tuple[str, ...]:
    optimizer = given.get("optimizer", settings_of(TrainingSettings)["optimizer"].default)
    return (optimizer,) if isinstance(optimizer, str) else tuple(optimizer)


def from_values(architecture: Model, values: Mapping[str, Any]) -> LaneSettings:
    """Settings of all names, unchecked; swept ones may be arrays over lanes. What is off in every lane becomes None."""

    def part(owner: Any) -> Any:
        fields = settings_of(owner)
        off = {
            name
            for name, field in fields.items()
            if is_swept(field) and field.metadata["off"] is not None and np.all(values[name] == field.metadata["off"])
        }
        return owner(**{name: None if name in off else values[name] for name in fields})

    return LaneSettings(architecture, part(architecture.Settings), part(TrainingSettings))


def check_settings(settings: LaneSettings) -> None:
    """Refuse settings that do not go together; swept ones may be arrays over lanes.

    Raises:
        UserError: some do not.
    """
    architecture, training = settings.architecture, settings.training
    architecture.check(settings.model)
    check_levels(training.corruption, np.ravel(training.noise))


def check_exact(settings: LaneSettings) -> None:
    """Refuse to train by a full-batch optimizer what has no gradient of one fixed loss; swept ones may be arrays.

    What was trained so by an earlier version is read all the same.

    Raises:
        UserError: the loss moves, or its gradient is that of another; traced values cannot be looked at.
    """
    architecture, model, training = settings.architecture, settings.model, settings.training
    if not OPTIMIZERS[training.optimizer].full_batch:
        return
    if architecture.choices:  # What is off in a model of several is None among its own settings.
        architecture, model = chosen(architecture.choices, model)
    needs = f"optimizer {training.optimizer} needs the exact gradient of one fixed loss"
    of_model = architecture.exact(model)
    if of_model is None:
        raise UserError(f"{needs}: got {architecture.name}, whose jumps have none; use adam or sgd")
    exact = {**of_model, "corruption": "none"}
    values = {name: getattr(model, name, getattr(training, name, None)) for name in exact}
    if other := {name: value for name, value in values.items() if _differs(value, exact[name])}:
        raise UserError(f"{needs}: got {_listed(other)}; use {_listed({name: exact[name] for name in other})}")


def _differs(value: Any, expected: Any) -> bool:
    """Whether a setting has another value in some lane; what is to be off, None, is off at 0, too."""
    if expected is None:
        return value is not None and not isinstance(value, jax.core.Tracer) and bool(np.any(value))
    return bool(value != expected)


def check_steps(numbers: Iterable[int]) -> None:
    """Refuse lanes that start at random and are not trained.

    Args:
        numbers: of steps.

    Raises:
        UserError: one is 0.
    """
    if 0 in numbers:
        raise UserError(
            "steps must be >= 1 where lanes start at random: got 0; the default is 20000, and 0 measures what "
            "start_from names"
        )


def check_lane(settings: Any) -> None:
    """Refuse what are no settings of lanes, or have a value out of its range; traced values cannot be looked at.

    Raises:
        UserError: they are none, or have one.
    """
    make = "make them with lane_settings"
    check_type("settings", settings, LaneSettings, "the settings of a lane", make)
    check_type("settings.model", settings.model, settings.architecture.Settings, "those of its architecture", make)
    check_type("settings.training", settings.training, TrainingSettings, "TrainingSettings", make)
    for owner in (settings.model, settings.training):
        for name, field in settings_of(owner).items():
            value = getattr(owner, name)
            off = value is None and field.metadata.get("off") is not None
            if off or isinstance(value, jax.core.Tracer):
                continue
            result = check(field, value)
            # What lane_settings reads, such as a number in text, is taken by no program as it stands.
            kinds = (int, float, np.ndarray, jax.Array) if is_swept(field) else (type(result),)
            rule = "a number" if is_swept(field) else f"of type {type(result).__name__}"
            check_type(name, value, (np.generic, *kinds), rule, make)
            if is_swept(field) and isinstance(value, int) and value > MOST:
                raise UserError(f"{name} must be at most {MOST} as a whole number: got {received(value)}; use a float")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_in_words(value)}" for name, value in values.items())


def _in_words(value: Any) -> str:
    """A value of a setting, those of several lanes in order; what is off in all of them is 0."""
    return "0" if value is None else " ".join(map(str, np.unique(np.asarray(value)).tolist()))


def lane_at(settings: LaneSettings, index: Any) -> LaneSettings:
    """The settings of some lanes out of those whose leaves are arrays over lanes."""
    return jax.tree.map(lambda leaf: leaf[index], settings)

"""Where the declarations of plug-ins go: into the registries that the engine and the commands read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sae_jax.analysis.options import TASKS
from sae_jax.data import SOURCES, DataConfig, Rows
from sae_jax.data.arguments import named_values
from sae_jax.models import ARCHITECTURES, Model, put_models
from sae_jax.plugins.extended import checked_model, extended
from sae_jax.plugins.parts import Source, Task
from sae_jax.plugins.returned import checked_rows
from sae_jax.settings import UserError, check, check_type, received, settings_of
from sae_jax.storage.plugin_list import LOADED, Plugin
from sae_jax.sweeps.observers import OBSERVERS, Observer

if TYPE_CHECKING:
    from sae_jax.analysis.tasks.base import TaskResult


def put(plugin: Plugin) -> None:
    """Register what a plug-in declares, which has been checked."""
    LOADED[plugin.path] = plugin
    for name, source in plugin.declared["source"].items():
        SOURCES[name] = _reader(plugin.name, name, source)
    for name, task in plugin.declared["task"].items():
        TASKS[name] = task._replace(measure=_measurer(plugin.name, name, task))
    for name, owner in plugin.declared["observer"].items():
        OBSERVERS[name] = _observer(name, owner)
    _put_models()


def unload(plugin: Plugin) -> None:
    """Forget a plug-in: names mean what they did before it was loaded.

    Raises:
        UserError: it is none, or is not loaded, as one in whose place a changed file was loaded.
    """
    check_type("plugin", plugin, Plugin, "a plug-in", "use what load returned")
    if LOADED.get(plugin.path) is not plugin:
        raise UserError(f"a plug-in must be loaded to be unloaded: got {plugin.name}, which is not; use what load gave")
    del LOADED[plugin.path]
    registries: dict[str, dict[str, Any]] = {"source": SOURCES, "task": TASKS, "observer": OBSERVERS}
    for kind, registry in registries.items():
        for name in plugin.declared[kind]:
            registry.pop(name, None)
    _put_models()


def _put_models() -> None:
    """Make every model anew: the package's own, then those of plug-ins, each with the terms and measures of all."""
    models: dict[str, Model] = {model.name: model for model in ARCHITECTURES}
    terms: dict[str, tuple[str, Any]] = {}
    measures: dict[str, tuple[str, Any]] = {}
    for plugin in LOADED.values():
        models |= {name: checked_model(plugin.name, model) for name, model in plugin.declared["model"].items()}
        terms |= {name: (plugin.name, term) for name, term in plugin.declared["term"].items()}
        measures |= {name: (plugin.name, measure) for name, measure in plugin.declared["measure"].items()}
    put_models({name: extended(model, terms, measures) for name, model in models.items()})


def _reader(plugin: str, name: str, source: Source) -> Any:
    """A source as the package's own are: f(what follows the colon, config)."""

    def read(argument: str, config: DataConfig) -> Rows:
        given: Any = argument
        if source.Settings is not None:
            given = _settings_from(name, argument, source.Settings)
        return checked_rows(f"source {name} of {plugin}", source.read(given, config))

    return read


def _observer(name: str, owner: type[Observer]) -> Any:
    """What makes an observer from what follows the colon of its name."""
    Settings = getattr(owner, "Settings", None)

    def make(argument: str) -> Observer:
        if Settings is not None:
            return owner(_settings_from(name, argument, Settings))  # type: ignore[call-arg]
        if argument:
            raise UserError(f"{name} has no settings: got {argument}; leave out what follows the colon")
        return owner()

    return make


def _settings_from(name: str, argument: str, owner: type) -> Any:
    """The settings that SETTING=VALUE,... says, checked."""
    fields: Mapping[str, Any] = settings_of(owner)
    if argument and not fields:
        raise UserError(f"{name} has no settings: got {argument}; leave out what follows the colon")
    example = next((f"{one}={field.default}" for one, field in fields.items()), "")
    given = named_values(name, argument, [*fields], example)
    defaults = {one: field.default for one, field in fields.items()}
    return owner(**(defaults | {one: check(fields[one], value) for one, value in given.items()}))


def _measurer(plugin: str, name: str, task: Task) -> Any:
    """A task's function that measures, which may only add variables of its own."""

    def measure(lanes: Any, options: Any) -> TaskResult:
        from sae_jax.analysis.tasks.base import TaskResult  # Help need not wait for it.

        result = task.measure(lanes, options)
        if not isinstance(result, TaskResult) or task.SCORE not in result.variables:
            got = received(result) if not isinstance(result, TaskResult) else ", ".join(result.variables)
            raise UserError(f"task {name} of {plugin} must return a TaskResult with {task.SCORE}: got {got}")
        for variable in result.variables:
            if not variable.startswith(f"{name}_"):
                raise UserError(
                    f"variables of task {name} of {plugin} must begin with {name}_: got {variable}; rename it"
                )
        return result

    return measure

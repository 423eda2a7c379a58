"""Names of the variables that runs have, which parameters and tasks of plug-ins must leave alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sae_jax.analysis.cells import PRESENT
from sae_jax.analysis.options import TASKS
from sae_jax.data import DataConfig
from sae_jax.data.normalise import STORED, of_targets
from sae_jax.models import Model
from sae_jax.models.gated import GATED
from sae_jax.settings import UserError, received, settings_of
from sae_jax.storage.description import PARAMETERS_SEED
from sae_jax.sweeps.dataset import CONSISTENCY, GAMMA, SUMMARY
from sae_jax.training.config import TrainingSettings

PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Beginnings of names: of curves, of measures, of measures against the truth.
FAMILIES = ("loss", "eval", "truth")
OF_RUNS = (
    *("model", "seed", "unit", "input", "target", "step", "snapshot", "lane", "program", "diverged_at", "stopped_at"),
    *("image_height", "image_width", SUMMARY, CONSISTENCY, GAMMA, PRESENT, PARAMETERS_SEED),
    *(name for stored, *_ in STORED.values() for name in (stored, of_targets(stored))),
)


def check_parameter(what: str, name: object, model: Model) -> None:
    """Refuse the name of a model's parameter, which becomes a variable of its runs, where they have another of it.

    Raises:
        UserError: they do, or it is no word.
    """
    if not isinstance(name, str) or not PARAMETER.fullmatch(name):
        raise UserError(
            f"{what}: names of parameters must be of letters, digits and _: got {received(name)}; rename it"
        )
    others = {*OF_RUNS, *_settings(model)}
    if name in others or _family(name):
        raise UserError(f"{what}: parameters must have names of their own: got {name}, as runs have it; rename it")


def check_task(what: str, name: str, models: Iterable[Model], tasks: Iterable[str]) -> None:
    """Refuse the name of a task where other variables of runs begin like its own.

    Args:
        what, name: the task, as messages call it, and its name.
        models: all that are known.
        tasks: the other tasks that are declared with it.

    Raises:
        UserError: one does.
    """
    taken: Mapping[str, None] = dict.fromkeys(
        [
            *OF_RUNS,
            *GATED.parameters(GATED.Settings()),
            *(one for model in models for one in (*_settings(model), *model.parameters(model.Settings()))),
        ]
    )
    others = [f"{task}_" for task in (*TASKS, *tasks) if task != name]
    begins = [one for one in (*taken, *others) if one == name or one.startswith(f"{name}_")]
    begins += [one for one in others if name.startswith(one)]
    begins += [f"{family}_..." for family in FAMILIES if family == _family(name)]
    if begins:
        raise UserError(
            f"variables of tasks must begin as no other variable of a run does: got {what}, whose {name}_... meet "
            f"{begins[0]}; rename it"
        )


def _settings(model: Model) -> list[str]:
    return [*settings_of(model.Settings), *settings_of(TrainingSettings), *settings_of(DataConfig)]


def _family(name: str) -> str | None:
    return next((one for one in FAMILIES if name == one or name.startswith(f"{one}_")), None)

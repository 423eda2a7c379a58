"""What a plug-in may declare, beside a Model, a Measure and a class derived from Observer."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from sae_jax.analysis.options import TaskConfig
from sae_jax.data import DataConfig, Rows
from sae_jax.models.base import Codes, Params, Step, Term


class AddedTerm(NamedTuple):
    """A term that is added to the loss of models.

        loss = the model's own + weight * compute(codes, params, step, settings)

    Where the weight is 0 in all lanes, programs are those without it.

    Attributes:
        weight: declaration of its weight, whose flag is --NAME: `swept(0.0, ..., off=0.0)`.
        compute: (codes [batch, d_hidden] of the step, as the model's own loss has them; parameters, Step, its own
            settings by attribute) -> scalar, without the weight.
        curve: label and units of its curve, which is loss_NAME.
        settings: declarations of further settings by name, made by `swept` or `static`.
        models: names of those that it is added to.
    """

    weight: Any
    compute: Callable[[Codes, Params, Step, types.SimpleNamespace], Float[Array, ""]]
    curve: Term
    settings: Mapping[str, Any] = types.MappingProxyType({})
    models: tuple[str, ...] = ("classic",)


class Source(NamedTuple):
    """A source of rows, `--dataset NAME` or `--dataset NAME:SETTING=VALUE,...`.

    Attributes:
        read: (an instance of Settings, DataConfig) -> Rows; where there are no Settings, (what follows the colon,
            DataConfig).
        help: what rows it reads.
        Settings: a dataclass of settings, each made by `setting`.
    """

    read: Callable[[Any, DataConfig], Rows]
    help: str
    Settings: type | None = None


class Task(NamedTuple):
    """A task of trained lanes, `--task NAME`; each of its settings is a flag of evaluate.

    Attributes:
        SCORE: the variable whose best lane the figure shows.
        measure: (Lanes, an instance of Settings) -> TaskResult, whose variables begin with the task's name.
        draw: (Dataset, ShownLane) -> Figure.
        Settings: a dataclass of settings, each made by `setting`; those of the package's tasks unless there are some.
    """

    SCORE: str
    measure: Callable[..., Any]
    draw: Callable[..., Any]
    Settings: type = TaskConfig

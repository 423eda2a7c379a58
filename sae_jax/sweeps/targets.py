"""What a transcoder makes of its inputs: how many numbers that are, and which models can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax import data as sources
from sae_jax.data import Data, DataConfig
from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, check, settings_of
from sae_jax.training.config import LaneSettings

OUTPUTS = "outputs"


def with_outputs(model: Any, source: DataConfig, data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a sweep, with the number of outputs where its targets say it and nobody else does.

    Args:
        model: a record or a name, or several.
        source: what the settings do not say of the samples.
        data: the samples where they have been prepared.
        settings: by name.

    Raises:
        UserError: there are targets, and a model that makes none of its inputs; or targets of several widths.
    """
    given = dict(settings)
    if OUTPUTS not in given:
        widths = _widths(source, data, given)
        if len(widths) > 1:
            raise UserError(
                f"targets must be of one width: got {', '.join(map(str, sorted(widths)))}; train them one by one"
            )
        [width] = widths
        given |= {OUTPUTS: width} if width else {}
    if np.any(given.get(OUTPUTS, 0)):
        check_model(model_of(model))
    return given


def check_model(model: Model) -> None:
    """Refuse targets for a model that reconstructs its own inputs.

    Raises:
        UserError: it is one, or one of several.
    """
    for one in model.choices or (model,):
        if OUTPUTS not in settings_of(one.Settings):
            raise UserError(
                f"targets need a model that makes them of its inputs: got {one.name}, which reconstructs these; use "
                "relu, topk, batch_topk or jumprelu"
            )


def check_targets(settings: LaneSettings, data: Data) -> None:
    """Refuse samples whose targets are not as many numbers as a lane makes.

    Raises:
        UserError: they are not.
    """
    outputs = settings.architecture.outputs(settings.model)
    if outputs and not data.outputs:
        raise UserError(
            f"a transcoder of {outputs} outputs needs targets: got samples alone; add targets, a folder beside "
            "activations:DIR, a file beside array:FILE, or as_data(x, targets=y)"
        )
    if data.outputs and not outputs:
        raise UserError(
            f"targets need a transcoder: got {data.outputs} numbers of them for a lane that reconstructs its samples; "
            "leave targets out"
        )
    if outputs != data.outputs:
        raise UserError(f"targets must have {outputs} numbers, as outputs says: got {data.outputs}; use others")


def check_all_or_none(every: Sequence[Data]) -> None:
    """Refuse a sweep of which some lanes have targets and others have none.

    Raises:
        UserError: it is one.
    """
    if len({bool(data.outputs) for data in every}) > 1:
        raise UserError("targets must be of all lanes or of none: got some with and some without; train them apart")


def _widths(source: DataConfig, data: Any, settings: Mapping[str, Any]) -> set[int]:
    """How many numbers the targets of a sweep have, 0 where it has none."""
    if isinstance(data, Data):
        return {data.outputs}
    every, datasets = (_several(settings.get(name, getattr(source, name))) for name in ("targets", "dataset"))
    field = settings_of(DataConfig)["targets"]
    named = [one for one in every if check(field, one)]
    return {sources.outputs_of(DataConfig(dataset=kind, targets=one)) for one in named for kind in datasets[:1]} or {0}


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]

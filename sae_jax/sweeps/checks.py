"""Settings that go together neither with the devices nor with the samples, refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.data import Data, DataConfig
from sae_jax.settings import UserError, settings_of
from sae_jax.sweeps.grid import Grid, fields_of
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.split import Group, unread_in
from sae_jax.sweeps.targets import check_targets
from sae_jax.training.config import LaneSettings
from sae_jax.training.optimizers import OPTIMIZERS

SKIP = "skip"


def check_read(grid: Grid, given: Mapping[str, Any]) -> None:
    """Refuse what was given of the samples, or of a transcoder, and no lane reads.

    Args:
        grid: the sweep.
        given: settings by name; those that have their default mislead nobody.

    Raises:
        UserError: there is some.
    """
    for name, value, other, beside in _without_effect(grid, given):
        if name == SKIP:
            raise UserError(f"{SKIP} needs targets, to which it maps inputs: got {value} without; add targets")
        if name in settings_of(DataConfig):
            raise UserError(f"{name} must have an effect: got {value} beside {other} {beside}; leave it out")


def unread_lines(grid: Grid, given: Mapping[str, Any]) -> list[str]:
    """What was given of the model or the training and no lane reads, in words; of axes `equal_lines` tells.

    Args:
        grid, given: as in `check_read`.
    """
    return [
        f"{name} {value} has no effect: {other} {beside} does not read it"
        for name, value, other, beside in _without_effect(grid, given)
        if len(grid.axes.get(name, ())) < 2
    ]


def _without_effect(grid: Grid, given: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, Any]]:
    """What was given, is not its default and no lane reads: its name and value, and the setting that says so."""
    fields, cells = fields_of(grid.model), [values for _, values in grid.cells()]
    ignored = [(unread_in(grid, values), values) for values in cells]
    for name, value in given.items():
        if all(name in one for one, _ in ignored) and not np.all(np.asarray(value) == fields[name].default):
            # That other models do not have it is no reason where one has.
            reasons = [(one[name], values[one[name]]) for one, values in ignored]
            yield name, value, *next((reason for reason in reasons if reason[0] != "model"), reasons[0])


def check_split(grid: Grid, engine: Engine, devices: int) -> None:
    """Refuse batches and units that cannot be split evenly over the devices.

    Raises:
        UserError: there are some, or devices would be left over, or an optimizer of all samples is to be split.
    """
    parts, group = engine.data_parallel, engine.group
    if devices % group:
        names = [name for name in ("data_parallel", "unit_parallel") if getattr(engine, name) > 1]
        raise UserError(
            f"devices must be a multiple of {' x '.join(names)}: got {devices} and {group}; "
            f"use a smaller {' or '.join(names)}, or devices {-(-devices // group) * group}"
        )
    for _, lanes, _ in grid.programs():
        training = lanes.training
        for name in ("data_parallel", "unit_parallel"):
            if OPTIMIZERS[training.optimizer].full_batch and getattr(engine, name) > 1:
                raise UserError(
                    f"{name} must be 1 for optimizer {training.optimizer}, whose line search takes the whole batch "
                    f"on one device: got {getattr(engine, name)}; use adam or sgd"
                )
        if lanes.model.d_hidden % engine.unit_parallel:
            raise UserError(
                f"d_hidden must be a multiple of unit_parallel: got {lanes.model.d_hidden} and {engine.unit_parallel}; "
                f"use d_hidden {-(-lanes.model.d_hidden // engine.unit_parallel) * engine.unit_parallel}"
            )
        if training.batch_size % parts:
            raise UserError(
                f"batch_size must be a multiple of data_parallel: got {training.batch_size} and {parts}; "
                f"use batch_size {-(-training.batch_size // parts) * parts}"
            )


def check_snapshots(grid: Grid, groups: Sequence[Group]) -> None:
    """Refuse to compare seeds that are not trained together.

    Args:
        grid: the sweep.
        groups: the lanes that are trained.

    Raises:
        UserError: there is one seed, or only some seeds of a cell are trained.
    """
    if not any(settings.training.snapshots for _, settings, _ in grid.programs()):
        return
    if len(grid.seeds) < 2:
        raise UserError("snapshots compares the decoder rows of several seeds: got one seed; use seeds 2, or more")
    some = [len(seeds) for _, _, seeds in groups if len(seeds) < len(grid.seeds)]
    if some:
        raise UserError(
            f"snapshots compares seeds that are trained together: got {some[0]} of {len(grid.seeds)} seeds to train; "
            "use snapshots 0, which leaves out what was compared, or train all seeds at once"
        )


def check_data(settings: LaneSettings, data: Data) -> None:
    """Refuse settings that cannot work with the data, before anything is trained.

    Raises:
        UserError: a batch is larger than the data, an optimizer of all samples is given a stream of them, the model
            cannot reach the values, or there is nothing to explain.
    """
    check_targets(settings, data)
    training = settings.training
    full_batch = OPTIMIZERS[training.optimizer].full_batch
    if full_batch and data.stream is not None:
        raise UserError(
            f"optimizer {training.optimizer} takes all samples at every step: got a stream of batches; use adam or sgd"
        )
    if training.batch_size > len(data.train) and data.stream is None and not full_batch:
        raise UserError(
            f"batch_size must be at most the number of training samples: got {training.batch_size} of "
            f"{len(data.train)}; use {len(data.train)} or less"
        )
    low = min(float(split.min()) for split in (data.train, data.heldout))
    high = max(float(split.max()) for split in (data.train, data.heldout))
    settings.architecture.check_data(settings.model, low, high)
    # Below, the squares of the differences are 0 in single precision.
    measured = data.heldout[:, -data.outputs :] if data.outputs else data.heldout
    if not np.max(np.ptp(measured.astype(float), axis=0)) ** 2 > np.finfo(np.float32).tiny:
        raise UserError(
            f"held-out samples must differ, or there is no variance to explain: got {len(measured)} alike; "
            "use a larger heldout"
        )

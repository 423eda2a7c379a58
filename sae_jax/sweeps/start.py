"""The state that lanes start with: as a finished sweep left it, whole or its parameters alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sae_jax.settings import UserError
from sae_jax.storage.arrays import Opener
from sae_jax.storage.states import STATE_FILE
from sae_jax.sweeps.origin import places_of
from sae_jax.sweeps.plan import count
from sae_jax.sweeps.program import Point, Program
from sae_jax.sweeps.split import first_alike, points_of
from sae_jax.sweeps.study import Earlier
from sae_jax.training.config import LaneSettings
from sae_jax.training.lane import LaneState
from sae_jax.training.step import TrainState, init_state

STEP = ".step"


def steps_before(origin: Earlier, lanes: np.ndarray, settings: LaneSettings, d_in: int) -> int | None:
    """Steps after which lanes go on with their whole states; None where they start from parameters alone.

    Their states go on where they are of the same kinds and shapes, which those of another optimizer are not.

    Args:
        origin: the sweep whose lanes they start from.
        lanes: numbers of those, [cells, seeds].
        settings: of the program.
        d_in: number of inputs.

    Raises:
        UserError: the parameters are of other shapes.
    """
    wanted = _shapes(settings, d_in)
    parameters = {path: shape for path, shape in wanted.items() if path.startswith(".params")}
    first = lanes.ravel()[:1]
    if origin.states:
        _, program, *_ = _state_rows(origin, first)[0]
        has = {
            name.removeprefix(str(program)): (values.shape[2:], values.dtype.kind)
            for name, values in origin.states.items()
            if name.startswith(state_name(program, "."))
        }
    else:
        has = {path: (_parameter(origin, path, first).shape[1:], "f") for path in parameters}
    for path, (shape, _) in parameters.items():
        before = has.get(path, ((), ""))[0]
        if before != shape:
            raise UserError(
                f"cannot start from {origin.name}: {_name_of(path)} must be {_by(before)}, as it is there: got "
                f"{_by(shape)} here; use the same d_hidden, and samples of as many inputs"
            )
    continued = has.keys() == wanted.keys() and all(has[path] == wanted[path] for path in wanted)
    return int(_state_leaf(origin, STEP, np.unique(lanes)).max()) if continued else None


def started(
    origin: Earlier, numbers: np.ndarray, continued: bool, lane: LaneState, settings: LaneSettings
) -> LaneState:
    """Lanes before their first step here, as they were left there.

    Args:
        origin: the sweep whose lanes they start from.
        numbers: of those, [blocks, cells_per_block].
        continued: whether their whole states go on; else parameters alone do.
        lane: as they would start at random, [blocks, cells_per_block, ...].
        settings: of the program.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(lane.train)

    def leaf(path: Any, at_random: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if not at_random.size or not (continued or name.startswith(".params")):
            return at_random
        return (_state_leaf if origin.states else _parameter)(origin, name, numbers)

    train: TrainState = jax.tree.unflatten(tree, [leaf(path, value) for path, value in paths])
    if not continued:
        train = dataclasses.replace(train, memory=_recalled(origin, numbers, train, settings))
    return LaneState(train, lane.stopping)


def _recalled(origin: Earlier, numbers: np.ndarray, train: TrainState, settings: LaneSettings) -> Any:
    """The memory of lanes that start from parameters alone, among which are some that training itself does not hold.

    Those, such as a running threshold, are missing where a run has kept no parameters, or not of all lanes.
    """
    model, s = settings.architecture, settings.model
    others = [name for name in model.parameters(s) if name not in train.params]
    missing = [name for name in others if not (name in origin.dataset and "seed" in origin.dataset[name].dims)]
    if missing and not settings.training.steps:
        raise UserError(
            f"steps 0 measures parameters that the run has kept, of all lanes: got none of {', '.join(missing)}; take "
            "some steps, or start from a run that kept them"
        )
    if missing:
        return train.memory
    finished: dict[str, Any] = {name: _parameter(origin, name, numbers) for name in others}
    return model.recall(train.memory, {**train.params, **finished}, s)


def in_words(origin: Earlier, points: Sequence[Point], programs: Sequence[Program]) -> str:
    """What a sweep starts from, and what of it goes on."""
    if origin.dictionary:
        raw = all(point.data.normalisation is None or point.data.normalisation.is_identity for point in points)
        samples = "takes" if raw else "takes, which is not how they are normalised here,"
        return (
            f"starting from {origin.name}: the parameters of a SAELens folder ({origin.grid.model.name}), which "
            f"{samples} samples as they are; steps count from 0"
        )
    if all(program.steps_before is not None for program in programs):
        return (
            f"starting from {origin.name}: parameters, running means and the optimizer go on after step "
            f"{programs[0].steps_before:,}; schedules span all steps"
        )
    reason = "its states do not fit this optimizer" if origin.states else "it was trained without --keep-state"
    return f"starting from {origin.name}: from its parameters alone, since {reason}; steps count from 0"


def put_states(
    states: dict[str, np.ndarray],
    opened: Opener,
    program: int,
    sizes: tuple[int, int],
    values: Mapping[str, np.ndarray],
    places: tuple[np.ndarray, np.ndarray],
) -> None:
    """Put what finished lanes carry where it belongs.

    Args:
        states: arrays by `state_name`, changed.
        opened: finds or makes them.
        program: number of the combination of program dimensions.
        sizes: its cells and seeds.
        values: arrays of the lanes by name, [lanes, ...]; those that are named by a path are such states.
        places: positions of the lanes among its cells and among the seeds, [lanes].
    """
    for path, value in values.items():
        if path.startswith(".") and value.size:
            name = state_name(program, path)
            new = name not in states
            states[name] = opened(name, (*sizes, *value.shape[1:]), value.dtype)
            if new and path == STEP:  # By which lanes that were trained are known.
                states[name][...] = 0
            states[name][places] = value


def state_name(program: int, path: str) -> str:
    """By what an array of a program's training states is known: `2.opt_state[1].mu['encoder_weight']`."""
    return f"{program}{path}"


def _shapes(settings: LaneSettings, d_in: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of every array that a lane carries, by its path."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((), leaf.dtype), settings)
    names = settings.architecture.statistics(settings.model)
    statistics = {name: jax.ShapeDtypeStruct((d_in,), np.float32) for name in names}
    state = jax.eval_shape(
        lambda key, values, statistics: init_state(key, values, d_in, statistics), jax.random.key(0), one, statistics
    )
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype.kind)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if leaf.size
    }


def _parameter(origin: Earlier, path: str, numbers: np.ndarray) -> np.ndarray:
    """A parameter of some lanes, without what it is filled up with where others are larger."""
    name = _name_of(path)
    if name not in origin.dataset:
        return np.zeros((*numbers.shape, 0), np.float32)
    values = origin.dataset[name].values[places_of(origin, numbers)]
    filled = ~np.isnan(values.reshape(-1, *values.shape[numbers.ndim :])[0])
    for axis in range(filled.ndim):
        others = tuple(one for one in range(filled.ndim) if one != axis)
        length = int(np.count_nonzero(filled.any(axis=others)))
        values = values[(*(slice(None),) * (numbers.ndim + axis), slice(length))]
    return values


def _state_rows(origin: Earlier, numbers: np.ndarray) -> list[tuple[np.ndarray, int, np.ndarray, np.ndarray]]:
    """Where the states of lanes lie: of every program (which of them, its number, positions, seeds).

    Those of lanes that were not trained lie where those lie that they equal.

    Raises:
        UserError: lanes that took steps have none.
    """
    _, equal = first_alike(origin.grid)
    points = points_of(origin.grid)
    positions = np.empty(len(points), int)
    for point in np.unique(points):
        positions[points == point] = np.arange(np.count_nonzero(points == point))
    cells, seeds = np.divmod(numbers, len(origin.grid.seeds))
    steps = {cell: origin.states.get(state_name(int(points[cell]), STEP)) for cell in equal}
    # Lanes that started from others may have been trained though they read the same.
    trained = {cell for cell, taken in steps.items() if taken is not None and taken[positions[cell]].any()}
    cells = np.vectorize(lambda cell: cell if cell in trained else equal.get(cell, cell), otypes=[int])(cells)
    rows = [
        (chosen, int(point), positions[cells[chosen]], seeds[chosen])
        for point in np.unique(points[cells])
        for chosen in [points[cells] == point]
    ]
    asked = np.asarray([values["steps"] for _, values in origin.grid.cells()])[cells]
    whole = origin.dataset["diverged_at"].values[places_of(origin, numbers)] < 0
    for chosen, point, places, seeds_there in rows:
        taken = origin.states.get(state_name(point, STEP))
        lost = 0 if taken is None else np.sum((taken[places, seeds_there] == 0) & (asked > 0)[chosen] & whole[chosen])
        if lost:  # An earlier version took them for equal to others.
            raise UserError(
                f"cannot start from {origin.name}: its training states must be those of every lane: got none of "
                f"{count(int(lost), 'lane')}; remove {STATE_FILE} there to start from parameters alone"
            )
    return rows


def _state_leaf(origin: Earlier, path: str, numbers: np.ndarray) -> np.ndarray:
    """An array of the training states of some lanes."""
    result: np.ndarray | None = None
    for chosen, program, positions, seeds in _state_rows(origin, numbers):
        values = origin.states[state_name(program, path)]
        if result is None:
            result = np.empty((*numbers.shape, *values.shape[2:]), values.dtype)
        result[chosen] = values[positions, seeds]
    assert result is not None
    return result


def _name_of(path: str) -> str:
    return path.removeprefix(".params['").removesuffix("']")


def _by(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]" if shape else "there, and is not"

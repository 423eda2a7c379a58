"""Who watches a sweep: several at once, and none of them can end a training by failing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.settings import UserError
from sae_jax.sweeps.grid import Grid


class Progress(NamedTuple):
    """Where a program stands.

    Attributes:
        phase: compiling, training or evaluating.
        step, steps: steps taken, and steps in all, each counted over all chunks.
        lanes: lanes of the program.
    """

    phase: str
    step: int
    steps: int
    lanes: int


class Points(NamedTuple):
    """One logged point of every lane of a chunk.

    Attributes:
        step: training steps taken.
        coordinates: value of every axis of the sweep, then the seed, by name, each [lanes].
        values: value of every curve by name, each [lanes]; NaN where a lane has stopped or diverged.
    """

    step: int
    coordinates: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]


class Observer:
    """Somebody who watches a sweep; this one ignores it. Subclasses override what they want to receive.

    Only the first of several processes calls its observers. A run that is resumed sends the points that it trains, not
    those that were logged before.
    """

    def line(self, text: str) -> None:
        """Receive one line of text."""

    def progress(self, progress: Progress) -> None:
        """Receive where a program stands."""

    def points(self, points: Points) -> None:
        """Receive the points that a chunk has logged at a step."""


class Observers(Observer):
    """Several observers as one; whoever raises an exception is named to the others, and not called again."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._listening = list(observers)

    def line(self, text: str) -> None:
        self._call(lambda observer: observer.line(text))

    def progress(self, progress: Progress) -> None:
        self._call(lambda observer: observer.progress(progress))

    def points(self, points: Points) -> None:
        self._call(lambda observer: observer.points(points))

    def _call(self, call: Callable[[Observer], None]) -> None:
        for observer in tuple(self._listening):
            if observer not in self._listening:
                continue  # It has failed at the line about another one's failure.
            try:
                call(observer)
            except Exception as error:
                self._listening.remove(observer)
                reason = (str(error).splitlines() or [""])[0]
                failure = UserError(
                    f"warning: an observer must not raise an exception: got {type(error).__name__}({reason}) from "
                    f"{type(observer).__name__}; the training goes on without it"
                )
                if self._listening:
                    self.line(str(failure))
                else:
                    warnings.warn(str(failure), RuntimeWarning, stacklevel=3)


def lane_coordinates(grid: Grid, point: Mapping[str, Any], cells: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
    """What tells lanes of a program apart.

    Args:
        grid: the sweep.
        point: the program's values on the program axes.
        cells, seeds: positions of the lanes among the program's cells and among the seeds, [lanes].

    Returns:
        The value of every axis, in the order given, then the seed, by name, each [lanes].
    """
    axes = zip(grid.axes.items(), grid.position(point, cells), strict=True)
    values = {name: np.broadcast_to(np.asarray(axis)[index], cells.shape) for (name, axis), index in axes}
    return values | {"seed": np.asarray(grid.seeds)[seeds]}

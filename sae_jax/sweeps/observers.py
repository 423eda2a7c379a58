"""Who watches a sweep: several at once, and none of them can end a training by failing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.settings import UserError, received
from sae_jax.sweeps.grid import Grid

# Held-out measures that observers receive while lanes are trained.
WATCHED = ("reconstruction", "explained_variance", "l0", "dead_fraction")
# What plug-ins declare, by name: f(what follows the colon) -> Observer.
OBSERVERS: dict[str, Callable[[str], Observer]] = {}


class Progress(NamedTuple):
    """Where a program stands.

    Attributes:
        phase: compiling, training or evaluating.
        step, steps: steps taken, and steps in all, each counted over all chunks.
        lanes: lanes of the program.
        program, programs: its number, from 0, and how many there are.
    """

    phase: str
    step: int
    steps: int
    lanes: int
    program: int = 0
    programs: int = 1


class Points(NamedTuple):
    """One value of every lane of a chunk, of some curves or measures.

    Attributes:
        step: training steps taken.
        coordinates: value of every axis of the sweep, then the seed, by name, each [lanes].
        values: by name, each [lanes]; a curve is NaN where a lane has stopped or diverged.
    """

    step: int
    coordinates: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]


class Observer:
    """Somebody who watches a sweep; this one ignores it. Subclasses override what they want to receive.

    Only the first of several processes calls its observers. A run that is resumed sends the points that it trains, not
    those that were logged before.
    """

    def begin(self, config: Mapping[str, Any], lanes: int) -> None:
        """Receive every setting of a sweep, a list where it varies, and its number of lanes, before it is trained."""

    def line(self, text: str) -> None:
        """Receive one line of text."""

    def progress(self, progress: Progress) -> None:
        """Receive where a program stands."""

    def points(self, points: Points) -> None:
        """Receive the curves that a chunk has logged at a step."""

    def measures(self, points: Points) -> None:
        """Receive measures of a chunk: of a part of the held-out data while it is trained, of all at its end."""

    def close(self) -> None:
        """Nothing follows: the sweep has ended, well or not."""


def listening(observers: Any) -> list[Observer]:
    """Observers as a list.

    Raises:
        UserError: something else is among them, which could only fail at every call.
    """
    several = list(observers) if isinstance(observers, (list, tuple)) else None
    wrong = [observers] if several is None else [one for one in several if not isinstance(one, Observer)]
    if several is None or wrong:
        raise UserError(
            f"observers must be a list of instances of sae_jax.Observer: got {received(wrong[0])}; derive a class from "
            "it, and pass [YourClass()]"
        )
    return several


class Observers(Observer):
    """Several observers as one; whoever raises an exception is named to the others, and not called again."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._listening = listening(observers)

    def add(self, observer: Observer) -> None:
        """Let somebody else watch from now on."""
        self._listening.append(observer)

    def begin(self, config: Mapping[str, Any], lanes: int) -> None:
        self._call(lambda observer: observer.begin(config, lanes))

    def line(self, text: str) -> None:
        self._call(lambda observer: observer.line(text))

    def progress(self, progress: Progress) -> None:
        self._call(lambda observer: observer.progress(progress))

    def points(self, points: Points) -> None:
        self._call(lambda observer: observer.points(points))

    def measures(self, points: Points) -> None:
        self._call(lambda observer: observer.measures(points))

    def close(self) -> None:
        # Whoever came last ends first: the others may have to hear how it failed.
        self._call(lambda observer: observer.close(), order=reversed)

    def _call(
        self, call: Callable[[Observer], None], order: Callable[[Sequence[Observer]], Iterable[Observer]] = iter
    ) -> None:
        for observer in order(tuple(self._listening)):
            if observer not in self._listening:
                continue  # It has failed at the line about another one's failure.
            try:
                call(observer)
            except (Exception, SystemExit) as error:
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
        The value of every setting that varies, in the order given, then the seed, by name, each [lanes].
    """
    places = dict(zip(grid.dims, grid.position(point, cells), strict=True))
    values = {
        name: np.broadcast_to(np.asarray(grid.axes[name])[places[dim]], cells.shape)
        for dim, names in grid.dims.items()
        for name in names
    }
    return values | {"seed": np.asarray(grid.seeds)[seeds]}

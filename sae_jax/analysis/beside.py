"""Other finished runs as points beside those of a sweep, such as dictionaries of others, measured on its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from sae_jax.analysis.cells import lane_scalars, over_seeds, with_presence
from sae_jax.analysis.channels import black_line
from sae_jax.analysis.style import Style
from sae_jax.settings import UserError
from sae_jax.sweeps.dataset import SUMMARY
from sae_jax.sweeps.reading import alike, summaries

# One for each run, in a colour that no line has, with an edge.
MARKERS = ("*", "D", "^", "v", "X", "P")
LOOK = {"color": "0.6", "markeredgecolor": "black", "markeredgewidth": 0.7}


class Beside(NamedTuple):
    """A run beside another: its name, and its measures of whole lanes by name."""

    name: str
    scalars: Mapping[str, xr.DataArray]


def beside(dataset: xr.Dataset, others: Mapping[str, xr.Dataset]) -> list[Beside]:
    """Runs that may be drawn beside a sweep's lanes.

    Args:
        dataset: of the sweep.
        others: the runs by name.

    Raises:
        UserError: there are too many, or one was measured on other samples.
    """
    if len(others) > len(MARKERS):
        raise UserError(f"--beside takes at most {len(MARKERS)} runs: got {len(others)}; leave some out")
    known = _samples(dataset)
    if others and len(known) != 1:
        axes = _axes_of_samples(dataset)
        fix = f"choose lanes of one of them by --select {axes[0]}=VALUE" if axes else "train it again"
        raise UserError(f"--beside needs a run of one set of samples: got {len(known)}; {fix}")
    for name, other in others.items():
        samples = _samples(other)
        if len(samples) != 1 or not alike(samples[0], known[0]):
            raise UserError(
                f"--beside needs runs that were measured on the same samples: got {name}, on others; measure it with "
                "the --dataset and --normalize of the run"
            )
    return [Beside(name, lane_scalars(with_presence(other))) for name, other in others.items()]


def _samples(dataset: xr.Dataset) -> list[Any]:
    """By what the samples of a run are known again."""
    return summaries(dataset, 0) if SUMMARY in dataset.coords else []


def _axes_of_samples(dataset: xr.Dataset) -> list[str]:
    """The axes along which lanes have other samples."""
    if SUMMARY not in dataset.coords:
        return []
    known = dataset[SUMMARY]
    return [str(dim) for dim in known.dims if bool((known != known.isel({dim: 0})).any())]


def draw_beside(panel: Axes, runs: Sequence[Beside], x_name: str, y_name: str, style: Style) -> None:
    """Means over seeds of every cell of other runs, in grey: a marker for each run; bars are deviations."""
    for run, marker in zip(runs, MARKERS, strict=False):
        if x_name in run.scalars and y_name in run.scalars:
            x, y = over_seeds(run.scalars[x_name]), over_seeds(run.scalars[y_name])
            columns = [np.ravel(part.values) for part in (x.mean, y.mean, x.deviation, y.deviation)]
            look: Any = {"markersize": _size(marker, style), "linestyle": "none", "zorder": 5, **LOOK}
            bars: Any = {"ecolor": "black", "elinewidth": 0.8, "capsize": 1.5}
            panel.errorbar(columns[0], columns[1], columns[3], columns[2], marker=marker, **look, **bars)


def _size(marker: str, style: Style) -> float:
    """Of a marker; a star's points are thin."""
    return (1.4 if marker == "*" else 0.8) * style.font


def entries(runs: Sequence[Beside], style: Style) -> list[tuple[Any, str]]:
    """What their markers are, for a legend."""
    return [
        (black_line(marker=marker, markersize=_size(marker, style), linestyle="none", **LOOK), run.name)
        for run, marker in zip(runs, MARKERS, strict=False)
    ]

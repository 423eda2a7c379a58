"""What a reader needs of every unit of trained lanes: its samples, the units like it, and its match in other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from sae_jax.analysis.cosines import nearest_rows
from sae_jax.analysis.lanes import Lanes, trained
from sae_jax.analysis.options import UnitsConfig
from sae_jax.analysis.tasks import Measurement
from sae_jax.analysis.top_samples import DRAWN, examples
from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.analysis.unit_variables import (
    AT_QUANTILES,
    CODES_AT_QUANTILES,
    DEAD,
    DENSE,
    DENSE_ABOVE,
    DENSITY,
    MATCH,
    MATCH_COSINES,
    MEAN,
    MISSING,
    NEAREST,
    NEAREST_COSINES,
    OWN_DIMS,
    PREFIX,
    TOP,
    TOP_CODES,
    TOP_NAMES,
    coordinates_of,
    empty,
    labelled,
    rule_of,
    variables_of,
)
from sae_jax.data.normalise import identity
from sae_jax.models import Model
from sae_jax.settings import UserError, check_type, check_whole, printable, received
from sae_jax.storage.memory import available_memory
from sae_jax.sweeps.keep import need_parameters
from sae_jax.sweeps.reading import arranged, check_results, described, grid_of
from sae_jax.training.lane import ROWS
from sae_jax.training.shapes import check_samples


def units_of(
    lane: TrainedLane,
    samples: np.ndarray,
    names: Sequence[str] | None = None,
    others: Mapping[int, TrainedLane] | None = None,
    options: UnitsConfig = UnitsConfig(),  # noqa: B008
) -> xr.Dataset:
    """What a reader needs of every unit of a lane.

        density_j = (samples on which unit j is active) / samples      cosine_jk = d_j . d_k / (||d_j|| ||d_k||)

    with d_j the decoder's row of unit j. Codes are computed block by block and cosines row by row, so that neither
    samples x units nor units x units numbers are held at once.

    Args:
        lane: whose units are looked at.
        samples: held-out ones as they were before normalisation, [samples, d_in], such as a map of a file.
        names: what each sample is, such as a token, [samples]; None where they have none.
        others: by seed, lanes of the same settings and other seeds, in which each unit's match is looked for.
        options: how many samples and units are kept.

    Returns:
        Variables over unit and dims of their own, with label and units: units_density, units_mean_active, units_dead,
        units_dense; units_top_sample, units_top_activation and, of named samples, units_top_name; at quantiles of a
        unit's activations units_quantile_sample, units_quantile_activation; units_nearest, units_nearest_cosine; with
        others units_match, units_match_cosine. Samples are named by their row, and are those on which a unit is active;
        of a unit that is active on more than 512, those at quantiles are of 512 drawn at random.

    Raises:
        UserError: an argument is of another kind or shape, the lane has diverged or has no decoder rows, or what is
            kept would not fit in memory.

    Source: Bricken et al. 2023 (top samples and intervals); Sun et al. 2025, arXiv 2506.15679 (dense units).
    """
    check_type("lane", lane, TrainedLane, "a lane of a run", "use sae_jax.open(RUN).best()")
    check_type("options", options, UnitsConfig, "a UnitsConfig", "use sae_jax.analysis.options.UnitsConfig(...)")
    samples = check_samples(samples, lane.params, lane.settings)
    if not len(samples):
        raise UserError("samples must hold at least one: got none; use held-out samples")
    names, others = _checked_names(names, len(samples)), _checked_others(others, lane)
    rows = _decoder_rows(lane)
    _check_fits(lane.d_hidden, len(others), options, 1)
    unit_examples = examples(lane, samples, lane.rows_at_once, options.top, options.quantiles, options.each)
    nearest = nearest_rows(rows, count=options.nearest)
    matches = [nearest_rows(rows, _decoder_rows(other)) for other in others.values()]
    values: dict[str, Any] = {
        DENSITY: unit_examples.density,
        MEAN: unit_examples.mean,
        DEAD: unit_examples.density == 0,
        DENSE: unit_examples.density > DENSE_ABOVE,
        **{TOP: unit_examples.top, TOP_CODES: unit_examples.top_codes},
        **{AT_QUANTILES: unit_examples.at_quantiles, CODES_AT_QUANTILES: unit_examples.codes_at_quantiles},
        **{NEAREST: nearest[0], NEAREST_COSINES: nearest[1]},
    }
    if matches:
        values |= {MATCH: np.concatenate([numbers for numbers, _ in matches], axis=1)}
        values |= {MATCH_COSINES: np.concatenate([cosines for _, cosines in matches], axis=1)}
    if names is not None:
        values[TOP_NAMES] = np.asarray([*map(printable, names), ""], object)[unit_examples.top]
    declared = variables_of(rule_of(lane.settings))
    variables = {name: labelled(declared[name], ("unit",), one) for name, one in values.items()}
    return xr.Dataset(variables, coordinates_of(options, lane.d_hidden, [*others]))


def measure(
    dataset: xr.Dataset,
    options: UnitsConfig = UnitsConfig(),  # noqa: B008
    point: Mapping[str, Any] | None = None,
    model: Model | None = None,
) -> Measurement:
    """What a reader needs of every unit of the lanes of a sweep, on its held-out samples.

    Args:
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        options: how many samples and units are kept.
        point: the place of one lane, as a lane's own; None is all lanes. The others, and those that diverged, hold NaN,
            -1 and empty names.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: the run has no such parameters or samples, no lane that did not diverge, or what is kept would not
            fit in memory.
    """
    from matplotlib import pyplot as plt

    from sae_jax.analysis.style import SCREEN, drawing
    from sae_jax.analysis.unit_page import best_of_units, unit_page

    check_results(dataset)
    need_parameters(dataset, "units")
    dataset = arranged(dataset)
    grid, programs = grid_of(dataset, model), trained(dataset, model=model)
    shape = (*map(len, grid.labels.values()), len(grid.seeds))
    wanted = _chosen(dataset, (*grid.dims, "seed"), point)
    units, several = dataset.sizes["unit"], len(grid.seeds) > 1
    _check_fits(units, len(grid.seeds) * several, options, int(np.prod(shape)))
    whole: dict[str, np.ndarray] = {}
    rules = dict.fromkeys(rule_of(lanes.lanes.settings) for lanes in programs)
    declared = variables_of(" / ".join(rules))
    coordinates = coordinates_of(options, units, grid.seeds if several else [])
    samples = {}
    for lanes in programs:
        for index in np.flatnonzero(~lanes.diverged):
            place = place_of(lanes, grid.labels, int(index))
            if wanted is not None and place != wanted:
                continue
            samples[place] = lanes.data
            for name, values in _of_lane(lanes, int(index), options).items():
                sizes = [len(coordinates[dim][1]) for dim in declared[str(name)].dims]
                if name not in whole:
                    whole[str(name)] = empty(declared[str(name)], (*shape, units, *sizes))
                if "other_seed" in values.dims:
                    values = values.reindex(other_seed=list(grid.seeds), fill_value=MISSING[values.dtype.kind])
                whole[str(name)][place][: values.sizes["unit"]] = values.values
    if not whole:
        what = "the run must hold a lane that did not diverge" if wanted is None else "the lane must not have diverged"
        raise UserError(f"{what}: got {'none' if wanted is None else 'one that has'}; choose another one")
    lane_dims = (*grid.dims, "seed", "unit")
    variables = {name: labelled(declared[name], lane_dims, values) for name, values in whole.items()}
    used = {dim for variable in variables.values() for dim in variable[0]}
    used_coordinates = {name: one for name, one in coordinates.items() if name in used and name != "unit"}
    measured = xr.Dataset(variables, used_coordinates)
    combined = with_units(dataset, measured, model)
    best = best_of_units(combined)
    with drawing():
        figure = unit_page(combined, best, samples[tuple(best.values())].heldout, SCREEN)
    plt.close(figure)  # It stays as it is; pyplot forgets it.
    return Measurement(measured, figure)


def with_units(dataset: xr.Dataset, variables: xr.Dataset, model: Model | None = None) -> xr.Dataset:
    """The Dataset of a sweep with what `measure` kept of its units, in place of all that had been kept before."""
    dataset = arranged(dataset)
    earlier = [name for name in dataset.data_vars if str(name).startswith(PREFIX)]
    left = described(dataset, grid_of(dataset, model)).drop_vars(earlier)
    return left.drop_vars(OWN_DIMS, errors="ignore").merge(variables, combine_attrs="override")


def _of_lane(lanes: Lanes, index: int, options: UnitsConfig) -> xr.Dataset:
    """`units_of` one of a program's lanes, whose samples have been normalised."""
    lane, others = lane_of(lanes, index), other_seeds(lanes, index)
    return units_of(lane, lanes.data.heldout[:, : lane.d_in], lanes.data.heldout_names, others, options)


def lane_of(lanes: Lanes, index: int) -> TrainedLane:
    """One of a program's lanes, for samples that have been normalised."""
    params, settings, seed = jax.tree.map(lambda leaf: leaf[index], lanes.lanes)
    return TrainedLane(params, settings, identity(lanes.data.heldout.shape[1]), {"seed": int(seed)})


def other_seeds(lanes: Lanes, index: int) -> dict[int, TrainedLane]:
    """By seed, the other lanes of a lane's cell that did not diverge."""
    seeds = len(lanes.labels["seed"])
    same_cell = np.flatnonzero((lanes.places // seeds == lanes.places[index] // seeds) & ~lanes.diverged)
    return {int(lanes.lanes.seed[place]): lane_of(lanes, int(place)) for place in same_cell if place != index}


def place_of(lanes: Lanes, every: Mapping[str, Sequence[Any]], index: int) -> tuple[int, ...]:
    """Where a program's lane stands along the dimensions of all lanes, then seed.

    Args:
        lanes: of the program.
        every: labels on the dimensions of all lanes.
        index: of the lane, among the program's.
    """
    within = dict(zip(lanes.dims, np.unravel_index(lanes.places[index], lanes.shape), strict=True))
    program = {dim: every[dim].index(label) for dim, label in lanes.point.items()}
    return tuple(int((within | program)[dim]) for dim in (*every, "seed"))


def _chosen(dataset: xr.Dataset, dims: Sequence[str], point: Mapping[str, Any] | None) -> tuple[int, ...] | None:
    """Where the lane of a point stands along the dimensions of all lanes, then seed."""
    if point is None:
        return None
    along = {dim: [name for name in point if name in dataset.coords and dataset[name].dims == (dim,)] for dim in dims}
    same = {dim: [dataset[name].values == point[name] for name in names] for dim, names in along.items()}
    return tuple(int(np.argmax(np.all(same[dim], axis=0))) if same[dim] else 0 for dim in dims)


def _decoder_rows(lane: TrainedLane) -> np.ndarray:
    if ROWS not in lane.params:
        raise UserError(f"units need decoder rows: got a model without {ROWS}; use another model")
    return lane.params[ROWS]


def _checked_names(names: Any, number: int) -> Sequence[str] | None:
    if names is None:
        return None
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != number:
        got = f"{len(names)} names" if listed else received(names)
        raise UserError(f"names must be a list of {number} words, one for each sample: got {got}; leave them out")
    return names


def _checked_others(others: Any, lane: TrainedLane) -> dict[int, TrainedLane]:
    fix = "use {1: run.lane(seed=1)}"
    check_type("others", {} if others is None else others, Mapping, "lanes by seed", fix)
    for seed, other in (others or {}).items():
        check_whole("others' seeds", seed, 0)
        check_type("others", other, TrainedLane, "lanes by seed", fix)
        if other.d_in != lane.d_in:
            raise UserError(f"others must have as many inputs as lane, {lane.d_in}: got {other.d_in}; leave it out")
    return dict(others or {})


def _check_fits(units: int, seeds: int, options: UnitsConfig, lanes: int) -> None:
    """Refuse to keep more than there is memory for."""
    values_per_unit = options.top * 3 + len(options.quantiles) * options.each * 2 + options.nearest * 2 + seeds * 2 + 4
    needed = 4 * units * (lanes * values_per_unit + 3 * (options.top + DRAWN) * 2)
    available = available_memory()
    if needed > available:
        raise UserError(
            f"what is kept of units must fit in memory: got {lanes} lanes of {units} units, which take "
            f"{needed / 2**20:,.0f} MiB of {available / 2**20:,.0f} MiB; keep fewer samples"
        )

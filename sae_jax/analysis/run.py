"""A finished run, opened: its lanes, each ready to encode new samples."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.config import DataConfig
from sae_jax.data.normalise import STORED, Normalisation, from_arrays, identity, of_targets
from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, check_type, received, settings_of, unknown
from sae_jax.storage import results
from sae_jax.storage.atomic import as_path
from sae_jax.storage.description import PARAMETERS_SEED, lane_dims, names_of_kind
from sae_jax.storage.run_list import folder_of
from sae_jax.sweeps.reading import ENDS, check_coordinates, check_results, constants_of, recorded
from sae_jax.sweeps.used_parts import check_plugins
from sae_jax.training.config import LaneSettings, declared, lane_settings
from sae_jax.training.evaluation import measures_of
from sae_jax.training.truth import MEASURES

L0, EXPLAINED = "eval_l0", "eval_explained_variance"
LARGEST = float(np.finfo(float).max)


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A finished sweep.

    Attributes:
        dataset: everything that it measured, and the parameters of every lane.
        model: what was trained.
        folder: where it lies; None where it never was in files.
    """

    dataset: xr.Dataset
    model: Model
    folder: Path | None = None

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {self.dataset.sizes.get(name, 1)}" for name in self.dims)
        return f"<run {self.folder or 'in memory'} of {self.model.name} {self.kind}: {axes}>"

    @property
    def kind(self) -> str:
        """What was trained, as a noun: transcoders where lanes make targets of their inputs, else autoencoders."""
        transcodes = "outputs" in self.dataset.coords and bool((self.dataset["outputs"] > 0).any())
        return "transcoders" if transcodes else "autoencoders"

    @property
    def dims(self) -> list[str]:
        """The dimensions of the lanes in order: those of the swept settings, then seed."""
        return [*lane_dims(self.dataset), "seed"]

    def lane(self, **point: Any) -> TrainedLane:
        """The lane at a place of the sweep.

        Args:
            point: a value for every setting that has several, and seed where there are several.

        Raises:
            UserError: a name is no setting, a value is none of the sweep's, one is missing, or the lane or its
                parameters are not there.
        """
        dataset = self.dataset
        places = {dim: np.arange(dataset.sizes[dim]) for dim in self.dims if dim in dataset.dims}
        for name, given in point.items():
            if name not in dataset.coords and name not in self._config:
                raise unknown("setting", name, [*self.fields, "seed"])
            values = dataset.coords[name] if name in dataset.coords else xr.DataArray(self._config[name])
            same = np.flatnonzero([_same(value, given) for value in np.atleast_1d(values.values).tolist()])
            if not same.size:
                raise UserError(f"{name} must be a value of the sweep: got {received(given)}; use {_listed(values)}")
            for dim in values.dims:
                places[str(dim)] = np.intersect1d(places[str(dim)], same)
        for dim, left in places.items():
            if len(left) > 1:
                missing = [name for name in self._along(dim) if name not in point][:1]
                several = "".join(f"{name}: got none; use {_listed(dataset[name][left])}" for name in missing)
                raise UserError(f"lane needs a value for {several}")
            if not len(left):
                names = ", ".join(f"{name}={point[name]}" for name in self._along(dim) if name in point)
                raise UserError(f"settings must go together in the sweep: got {names}; see its coordinate {dim}")
        return self._lane_of(dataset.isel({dim: int(left[0]) for dim, left in places.items()}))

    def best(self, measure: str = EXPLAINED, at: Mapping[str, float] | None = None) -> TrainedLane:
        """The lane with the best value of a measure: the highest, or the lowest where that is declared to be better.

        Args:
            measure: a variable of whole lanes, such as eval_explained_variance or probe_accuracy.
            at: the most that other measures may be, such as {"eval_l0": 10}. Explained variance alone is always
                highest in the least sparse cell: see `pareto`.

        Raises:
            UserError: there is no such measure of whole lanes, or no finite lane that meets what `at` asks for.
        """
        limits = {} if at is None else at
        check_type("at", limits, Mapping, "the most that measures may be, by name", "use {'eval_l0': 10}")
        scores = self._scores(measure)
        allowed = scores.notnull()
        for name, most in limits.items():
            number = isinstance(most, (int, float, np.integer, np.floating)) and not isinstance(most, bool)
            # NumPy compares no whole number that is larger than any float.
            limit = float(max(min(most, LARGEST), -LARGEST) if isinstance(most, int) else most) if number else np.nan
            if np.isnan(limit):
                raise UserError(f"at must name numbers: got {received(most)} for {name}; use {{'eval_l0': 10}}")
            values = self._scores(name).transpose(*scores.dims)
            allowed = allowed & (values <= limit)
            if not bool(allowed.any()):
                lowest = float(values.min())
                raise UserError(f"no lane has {name} of at most {limit:g}: got {lowest:g} as its lowest; ask for more")
        if not bool(allowed.any()):
            raise UserError(f"no lane of the run has a finite {measure}; train again with a lower learning_rate")
        scores = (-scores if self.lower_is_better(measure) else scores).where(allowed)
        return self._lane_of(self.dataset.isel(_place(scores.fillna(-np.inf))))

    def pareto(self, sparsity: str = L0, quality: str = EXPLAINED) -> list[TrainedLane]:
        """The lanes that no other lane beats at once in sparsity (lower) and in quality, sparsest first.

        Args:
            sparsity, quality: variables of whole lanes.
        """
        low = self._scores(sparsity)
        high = self._scores(quality).transpose(*low.dims)
        high = -high if self.lower_is_better(quality) else high
        lanes, best = [], -np.inf
        for place in np.lexsort((-high.values.ravel(), low.values.ravel())):
            score = high.values.ravel()[place]
            if np.isfinite(score) and np.isfinite(low.values.ravel()[place]) and score > best:
                best = score
                index = np.unravel_index(place, low.shape)
                lanes.append(self._lane_of(self.dataset.isel(dict(zip(low.dims, index, strict=True)))))
        return lanes

    @property
    def fields(self) -> dict[str, dataclasses.Field]:
        """The declarations of all settings of the run, by name."""
        return {**declared(self.model), **settings_of(DataConfig)}

    def data_config(self, lane: TrainedLane, **changed: Any) -> DataConfig:
        """Where the samples of a lane came from.

        Args:
            lane: of this run.
            changed: settings of the data that are to be others, such as dataset.

        Raises:
            UserError: a value is out of range.
        """
        check_type("lane", lane, TrainedLane, "a lane of the run", "use run.best()")
        for name in changed:
            if name not in settings_of(DataConfig):
                raise unknown("setting of the data", name, settings_of(DataConfig))
        check_plugins(self.dataset, () if "dataset" in changed else ("source",))
        values = {**self._config, **lane.point, **changed}
        return DataConfig(**{name: values[name] for name in settings_of(DataConfig) if name in values})

    @property
    def _config(self) -> dict[str, Any]:
        return constants_of(self.dataset, self.fields)

    def _along(self, dim: str) -> list[str]:
        """The settings, or the seed, that vary along a dimension of the lanes."""
        return [str(name) for name, one in self.dataset.coords.items() if one.dims == (dim,) and name in self._named]

    @property
    def _named(self) -> set[str]:
        return {*self.fields, "seed"}

    def _scores(self, name: str) -> xr.DataArray:
        """A variable of whole lanes in double precision, without the lanes that diverged."""
        lanes = set(self.dims) & set(map(str, self.dataset.dims))
        check_type("measure", name, str, "the name of a measure", f"use {EXPLAINED}")
        names = [str(one) for one, values in self.dataset.data_vars.items() if set(map(str, values.dims)) == lanes]
        if name not in names:
            raise unknown("measure of whole lanes", name, [one for one in names if one not in ENDS])
        scores = self.dataset[name].astype(float)
        return scores.where(self.dataset["diverged_at"] < 0) if "diverged_at" in self.dataset else scores

    def lower_is_better(self, name: str) -> bool:
        point = {dim: 0 for dim in self.dims if dim in self.dataset.dims}
        settings = self._settings(self.dataset.isel(point))
        measures = measures_of(settings.architecture, settings.model)
        measure = measures.get(name.removeprefix("eval_")) or MEASURES.get(name)
        check_plugins(self.dataset, () if measure else ("measure",))
        return measure is not None and measure.lower_is_better

    def _settings(self, lane: xr.Dataset) -> LaneSettings:
        """Settings of a lane, whose Dataset has no axis left: its coordinates, and what was the same in all lanes."""
        config, model = self._config, self.model
        if model.choices:  # A lane is of one of them.
            name = lane.coords["model"].item() if "model" in lane.coords else config["model"]
            model = next(one for one in model.choices if one.name == name)
        fields = declared(model)
        values = {
            name: lane.coords[name].item() if name in lane.coords else config[name]
            for name in fields
            if name in lane.coords or name in config
        }
        return lane_settings(model, **values)

    def _lane_of(self, lane: xr.Dataset) -> TrainedLane:
        settings = self._settings(lane)
        if any(bool(lane[name].isnull()) for name in ENDS if name in lane):
            raise UserError("the run must hold the lane: got a hole of a merged grid; choose another one")
        params, sizes = {}, {"unit": settings.model.d_hidden, **self._widths(lane)}
        for name, parameter in settings.architecture.parameters(settings.model).items():
            if name not in names_of_kind(lane, "parameter"):
                raise UserError(f"the run must hold {name} of its lanes: got none; train it again with --keep all")
            values = lane[name]
            values = values.isel({dim: slice(size) for dim, size in sizes.items() if dim in values.dims})
            params[name] = np.array(values.transpose(*parameter.dims).values, np.float32)
        if all(np.isnan(values).all() for values in params.values()):
            raise UserError("the run must hold the parameters of the lane: got NaN alone (--keep); choose another one")
        point = {
            name: lane[name].item() for dim in self.dims for name in self._along(dim) or [dim] if name in lane.coords
        }
        if PARAMETERS_SEED in lane and int(lane[PARAMETERS_SEED]) != point["seed"]:
            raise UserError(
                f"the run kept the parameters of the best seed of every cell: got seed {point['seed']}; "
                f"use seed {int(lane[PARAMETERS_SEED])}"
            )
        ends = {name: int(lane[name]) for name in ENDS if name in lane}
        return TrainedLane(params, settings, self._normalisation(lane), point, **ends)

    def _widths(self, lane: xr.Dataset) -> dict[str, int]:
        """How many inputs the lane has, and targets; where others have more, its arrays are filled up with NaN."""
        widths = dict.fromkeys(("input", "target"), 0)
        for name in names_of_kind(lane, "parameter"):
            for dim in [dim for dim in widths if dim in lane[name].dims]:
                row = lane[name].isel({other: 0 for other in lane[name].dims if other != dim})
                widths[dim] = max(widths[dim], int(row.notnull().sum()))
        return widths

    def _normalisation(self, lane: xr.Dataset) -> Normalisation:
        names = [each(name) for name, _, _ in STORED.values() for each in (str, of_targets)]
        widths = tuple(self._widths(lane).values())
        normalisation = from_arrays({name: lane[name].values for name in names if name in lane}, *widths)
        rule, source = (str(lane[name].values) if name in lane.coords else "" for name in ("normalize", "dataset"))
        by_default = rule == "auto" and source.partition(":")[0] in ("patches", "images")
        if normalisation is None and (by_default or rule not in ("auto", "none", "")):
            raise UserError(
                "the run must hold the normalisation of its samples: got none, as an earlier version wrote it; "
                "train it again"
            )
        return normalisation or identity(sum(widths))


def open(run: str | Path | xr.Dataset, model: Model | None = None) -> Run:
    """Open a finished run.

    Args:
        run: its folder, its name in the folder runs, or the Dataset that a sweep returned.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: there is no such run, it is unfinished, or its files are damaged.
    """
    folder: Path | None = None
    kinds = (str, os.PathLike, xr.Dataset)
    check_type("run", run, kinds, "a run's folder, its name, or a Dataset", "use what sae_jax.sweep returned")
    if isinstance(run, xr.Dataset):
        check_results(run)
        dataset = run
    else:
        folder = folder_of(as_path("run", run, "a run's folder or its name", "use runs/NAME"))
        dataset = results.load(folder)
    check_coordinates(dataset)
    check_plugins(dataset, ("model", "term"), model is not None)
    name = recorded(dataset, "config", dict).get("model", "classic")
    return Run(dataset, model_of(name if model is None else model), folder)


def _same(value: Any, given: Any) -> bool:
    """Whether a value is meant by what was given, which single precision may have rounded."""
    if isinstance(given, bool) and not isinstance(value, bool):
        return False
    try:
        return bool(np.isclose(float(value), float(given), rtol=1e-6, atol=0))
    except (TypeError, ValueError, OverflowError):
        return isinstance(given, (str, os.PathLike, type(None))) and str(value) == str(given)


def _listed(values: xr.DataArray) -> str:
    every = np.atleast_1d(values.values).tolist()
    one_of = "one of " if len(every) > 1 else ""
    return one_of + ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in every)


def _place(scores: xr.DataArray) -> dict[str, int]:
    index = np.unravel_index(int(np.argmax(scores.values)), scores.shape)
    return {str(name): int(place) for name, place in zip(scores.dims, index, strict=True)}

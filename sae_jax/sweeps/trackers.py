"""Trackers of experiments as observers: TensorBoard, Weights & Biases, Trackio; a run of theirs for every lane."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sae_jax.settings import UserError, unknown
from sae_jax.storage.provenance import TENSORBOARD
from sae_jax.sweeps.observers import Observer, Points

# Each lane is a run of its own, and trackers are not made for thousands at a time.
MOST_LANES = 64
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
PROJECT = "sae_jax"
LONGEST_NAME = 150
# What SAELens calls the same numbers. Its losses/mse_loss is the squared error of a sample, summed over its inputs.
SAELENS = {
    "loss": "losses/overall_loss",
    "loss_reconstruction": "losses/mse_loss",
    "eval_explained_variance": "metrics/explained_variance",
    "eval_l0": "metrics/l0",
    "eval_dead_fraction": "sparsity/dead_features",
}


class Writer(Protocol):
    """One lane's run at a tracker."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name."""

    def close(self) -> None:
        """End it."""


class TensorBoard:
    """Event files in a folder for every lane."""

    def __init__(self, folder: Path, run: str, lane: str, key: str, config: Mapping[str, Any]) -> None:
        self._folder, self._lane, self._config = folder, lane, config
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # What a process that was killed had written from this step on does not count.
            self._writer = SummaryWriter(str(self._folder / TENSORBOARD / self._lane), purge_step=step)
            self._writer.add_text("settings", f"    {json.dumps(self._config)}", step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run for every lane, all of them in a group."""

    def __init__(self, folder: Path, run: str, lane: str, key: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=run,
            name=lane,
            id=hashlib.sha256(f"{key} {lane}".encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until everything is written."""
        self._run.finish()


class Trackio:
    """A run for every lane. The library has one at a time: it is written when the lane has ended."""

    def __init__(self, folder: Path, run: str, lane: str, key: str, config: Mapping[str, Any]) -> None:
        self._arguments = {"project": re.sub(r"[^A-Za-z0-9_-]", "_", run), "name": lane, "config": dict(config)}
        self._rows: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep numbers by name."""
        self._rows.append((step, dict(values)))

    def close(self) -> None:
        """Write all of them."""
        import trackio

        run = trackio.init(**self._arguments, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        for step, values in self._rows:
            run.log(values, step=step)
        trackio.finish()


WRITERS: dict[str, Callable[..., Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


class Tracker(Observer):
    """Sends every lane's curves and measures to a tracker, where it is a run with the lane's settings.

    It does so beside the training, which waits for no server; what fails there is raised at the next call.
    """

    def __init__(self, kind: str, folder: Path, run: str, key: str = "", say: Callable[[str], None] = print) -> None:
        """Prepare a tracker; nothing is written before the first point.

        Args:
            kind: tensorboard, wandb or trackio.
            folder: where files go that it writes.
            run: name of the sweep.
            key: by what the sweep is known again when it is resumed.
            say: receives a line where not all lanes are tracked.

        Raises:
            UserError: there is no such tracker, or its package is missing.
        """
        check_tracker(kind)
        self._open = WRITERS[kind]
        self._folder, self._run, self._key, self._say = folder, run, key, say
        self._config: Mapping[str, Any] = {}
        self._writers: dict[str, Writer] = {}
        self._names: set[str] = set()
        self._worker = ThreadPoolExecutor(1)
        self._sending: list[Future[None]] = []

    def begin(self, config: Mapping[str, Any], lanes: int) -> None:
        """Note the settings."""
        self._config = config
        if lanes > MOST_LANES:
            self._say(f"track: each lane is a run of its own; the first {MOST_LANES} of {lanes} lanes are tracked")

    def points(self, points: Points) -> None:
        """Send curves."""
        self._later(self._send, points, "")

    def measures(self, points: Points) -> None:
        """Send measures; those of the last step end a lane."""
        self._later(self._send, points, "eval_")
        self._later(self._end_lanes, points)

    def close(self) -> None:
        """Wait until everything is sent, and end the runs of lanes that have not come to their end."""
        self._later(self._end_all)
        self._worker.shutdown()
        self._check()

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        self._check()
        self._sending.append(self._worker.submit(action, *arguments))

    def _check(self) -> None:
        """Raise the error of what could not be sent."""
        done = [one for one in self._sending if one.done()]
        self._sending = [one for one in self._sending if not one.done()]
        try:
            for one in done:
                one.result()
        except Exception:
            self._worker.shutdown(wait=False, cancel_futures=True)
            raise

    def _end_lanes(self, points: Points) -> None:
        for place in range(len(points.coordinates["seed"])):
            lane = {name: _plain(values[place]) for name, values in points.coordinates.items()}
            name = _name_of(lane)
            if points.step == {**self._config, **lane}["steps"] and name in self._writers:
                self._writers.pop(name).close()

    def _end_all(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _send(self, points: Points, prefix: str) -> None:
        for place in range(len(points.coordinates["seed"])):
            lane = {name: _plain(values[place]) for name, values in points.coordinates.items()}
            config = {name: value for name, value in {**self._config, **lane}.items() if name != "seeds"}
            values = {f"{prefix}{name}": float(every[place]) for name, every in points.values.items()}
            finite = {name: value for name, value in values.items() if np.isfinite(value)}
            writer = self._writer(_name_of(lane), config)
            if writer and finite:
                writer.log(points.step, finite | _as_saelens(finite, config))

    def _writer(self, lane: str, config: Mapping[str, Any]) -> Writer | None:
        """The run of a lane; None where there are too many lanes."""
        if lane not in self._writers:
            if lane not in self._names and len(self._names) == MOST_LANES:
                return None
            self._names.add(lane)
            self._writers[lane] = self._open(self._folder, self._run, lane, self._key, config)
        return self._writers[lane]


def check_tracker(kind: str) -> None:
    """Refuse a tracker that is unknown, or whose package is missing.

    Raises:
        UserError: it is.
    """
    if kind not in PACKAGES:
        raise unknown("tracker", kind, PACKAGES)
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        raise UserError(
            f"track {kind} needs the package {PACKAGES[kind]}: got none; python -m pip install {PACKAGES[kind]}"
        )


def _as_saelens(values: Mapping[str, float], config: Mapping[str, Any]) -> dict[str, float]:
    """The same numbers under the names that SAELens gives them, where it has them."""
    named = {SAELENS[name]: value for name, value in values.items() if name in SAELENS}
    if config.get("reconstruction_loss") != "squared_error":
        named.pop("losses/mse_loss", None)
    if "sparsity/dead_features" in named:
        named["sparsity/dead_features"] = round(named["sparsity/dead_features"] * config["d_hidden"])
    return named


def _name_of(lane: Mapping[str, Any]) -> str:
    """A lane's name, also of a file: beta=1,rho=0.05,seed=0."""
    text = ",".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in lane.items()
    )
    name = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text)
    # Names that would be the same, or too long, differ by a digest.
    return name if name == text and len(name) <= LONGEST_NAME else _shortened(name, text)


def _shortened(name: str, text: str) -> str:
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's."""
    return value.item() if isinstance(value, np.generic) else value

"""Trackers: what is in their files, and what becomes of a training whose tracker fails."""

import importlib.util
import json

import numpy as np
import pytest

from sae_jax import UserError, as_data, sweep
from sae_jax.commands import sweep as command
from sae_jax.storage import results
from sae_jax.sweeps import trackers
from sae_jax.sweeps.trackers import Tracker

SMOKE = ["--dataset", "digits", "--d-hidden", "5", "--batch-size", "50", "--seeds", "2", "--rho", "0.1"]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not there")


class Kept:
    """A tracker that keeps what it receives."""

    def __init__(self, folder, run, lane, key, config):
        self.lane, self.config, self.rows, self.closed = lane, config, [], False
        Kept.every.append(self)

    def log(self, step, values):
        assert not self.closed
        self.rows.append((step, dict(values)))

    def close(self):
        self.closed = True


@pytest.fixture
def kept(monkeypatch):
    """Let `tensorboard` be a tracker that keeps what it receives."""
    Kept.every = []
    monkeypatch.setitem(trackers.WRITERS, "tensorboard", Kept)
    monkeypatch.setattr(trackers, "check_tracker", lambda kind: None)
    return Kept.every


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


def scalars(folder):
    """{tag: {step: value}} and the text of the event files in a folder."""
    from tensorboardX.event_file_writer import EventFileWriter  # noqa: F401  (the package that wrote them)
    from tensorboardX.proto.event_pb2 import Event

    tags, texts = {}, []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):  # Length, its checksum, the event, its checksum.
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.HasField("tensor"):
                    texts += [text.decode() for text in value.tensor.string_val]
                else:
                    tags.setdefault(value.tag, {})[event.step] = value.simple_value
    return tags, texts


@needs("tensorboardX")
def test_tensorboard_files_hold_the_curves_the_measures_and_the_settings_of_every_lane(tmp_path):
    words = ["--steps", "1200", "--learning-rate", "0.01", "0.02", "--track", "tensorboard"]
    command.main([*SMOKE, *words, "--beta", "1", "--runs", str(tmp_path), "--name", "one"])
    dataset, folder = results.load(tmp_path / "one"), tmp_path / "one" / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"learning_rate={rate},seed={seed}" for rate in (0.01, 0.02) for seed in (0, 1)
    ]
    for rate in (0.01, 0.02):
        tags, texts = scalars(folder / f"learning_rate={rate},seed=1")
        lane = dataset.sel(learning_rate=rate, seed=1)
        for name in ("loss", "loss_reconstruction", "loss_kl"):
            assert list(tags[name]) == lane["step"].values.tolist()
            np.testing.assert_array_equal(np.float32(list(tags[name].values())), lane[name])
        for name in ("explained_variance", "l0", "dead_fraction", "reconstruction"):
            assert tags[f"eval_{name}"][1200] == np.float32(lane[f"eval_{name}"])
            assert len(tags[f"eval_{name}"]) > 1
        assert tags["losses/mse_loss"] == tags["loss_reconstruction"]
        assert tags["losses/overall_loss"] == tags["loss"] and tags["metrics/l0"] == tags["eval_l0"]
        assert tags["metrics/explained_variance"] == tags["eval_explained_variance"]
        assert tags["sparsity/dead_features"][1200] == round(float(lane["eval_dead_fraction"]) * 5)
        settings = json.loads(texts[0])
        assert settings["learning_rate"] == rate and settings["seed"] == 1 and settings["d_hidden"] == 5


def test_a_lane_has_a_run_that_ends_with_it_and_the_same_results_as_without(kept, data, tmp_path):
    settings = {"batch_size": 32, "steps": 210, "beta": [0.5, 2.0], "d_hidden": [4, 5], "seeds": 2}
    made = sweep(data, observers=[Tracker("tensorboard", tmp_path, "one")], **settings)
    assert [one.lane for one in kept[:2]] == ["beta=0.5,d_hidden=4,seed=0", "beta=2,d_hidden=4,seed=0"]
    assert len(kept) == 8 and all(one.closed for one in kept)
    for one in kept:
        assert one.rows[-1][0] == 210 and "eval_l0" in one.rows[-1][1]
        assert one.config["d_hidden"] in (4, 5) and "seeds" not in one.config
    unwatched = sweep(data, **settings)
    for name in made.variables:
        np.testing.assert_array_equal(made[name], unwatched[name])


def test_no_value_that_is_no_number_is_sent_and_no_mse_loss_that_is_none(kept, data, tmp_path):
    settings = {"batch_size": 32, "steps": 50, "d_hidden": 4, "learning_rate": [0.01, 1e38]}
    tracker = Tracker("tensorboard", tmp_path, "one")
    sweep(data, reconstruction_loss="half_squared_error", observers=[tracker], **settings)
    steps = [[step for step, values in one.rows if "loss" in values] for one in kept]
    assert len(steps[0]) == 50 and len(steps[1]) < 50
    for one in kept:
        assert all(np.isfinite(value) for _, values in one.rows for value in values.values())
        assert not any("losses/mse_loss" in values for _, values in one.rows)


def test_of_many_lanes_the_first_are_tracked_and_a_line_says_so(kept, data, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "MOST_LANES", 3)
    lines = []
    tracker = Tracker("tensorboard", tmp_path, "one", say=lines.append)
    sweep(data, steps=20, batch_size=32, d_hidden=4, beta=[0.5, 2.0], seeds=2, observers=[tracker])
    assert lines == ["track: each lane is a run of its own; the first 3 of 4 lanes are tracked"]
    assert len(kept) == 3 and all(one.closed for one in kept)


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_is_named_and_ends_no_training(where, tmp_path, monkeypatch, capsys):
    class Failing(Kept):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if where == "open":
                raise ConnectionError("no such server")

        def log(self, step, values):
            if where == "log":
                raise ConnectionError("no such server")

        def close(self):
            if where == "close":
                raise ConnectionError("no such server")

    Kept.every = []
    monkeypatch.setitem(trackers.WRITERS, "tensorboard", Failing)
    monkeypatch.setattr("sae_jax.commands.session.check_tracker", lambda kind: None)
    monkeypatch.setattr(trackers, "check_tracker", lambda kind: None)
    command.main([*SMOKE, "--steps", "60", "--track", "tensorboard", "--runs", str(tmp_path), "--name", "one"])
    warnings = [line for line in capsys.readouterr().out.splitlines() if "observer" in line]
    assert warnings == [
        "warning: an observer must not raise an exception: got ConnectionError(no such server) from Tracker; the "
        "training goes on without it"
    ]
    assert np.isfinite(results.load(tmp_path / "one")["loss"]).all()


def test_a_missing_package_and_an_unknown_tracker_are_said_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(SystemExit) as stopped:
        command.main([*SMOKE, "--track", "wandb", "--runs", str(tmp_path), "--name", "one"])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == (
        "error: track wandb needs the package no_such_package: got none; python -m pip install no_such_package\n"
    )
    with pytest.raises(UserError, match="unknown tracker tensorbord: did you mean tensorboard"):
        Tracker("tensorbord", tmp_path, "one")


def test_names_of_lanes_are_names_of_files():
    lanes = [{"dataset": f"array:/data/{name}.npy", "seed": 0} for name in ("a", "b", "a" * 300, "a" * 301)]
    names = [trackers._name_of(lane) for lane in lanes]
    assert len(set(names)) == 4 and all("/" not in name and len(name) < 200 for name in names)


@needs("wandb")
def test_weights_and_biases_keeps_every_lane_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    command.main([*SMOKE, "--steps", "60", "--beta", "1", "--track", "wandb", "--runs", str(tmp_path), "--name", "one"])
    runs = sorted((tmp_path / "one" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2 and all(path.stat().st_size > 500 for path in runs)
    assert (tmp_path / "one" / "results.nc").is_file()

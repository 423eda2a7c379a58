"""Observers of a sweep: what they receive, and what becomes of one that fails."""

import numpy as np
import pytest

from sae_jax import as_data, sweep
from sae_jax.sweeps.observers import Observer, Observers
from sae_jax.sweeps.pace import watched_steps
from sae_jax.training.lane import windows

SETTINGS = {"batch_size": 32, "steps": 210}  # A point is logged every two steps.
AXES = {"beta": [0.5, 2.0], "d_hidden": [4, 5], "learning_rate": [0.01, 1e38]}


class Everything(Observer):
    """Keeps all that it receives."""

    def __init__(self):
        self.begun, self.lines, self.progresses, self.received, self.measured, self.closed = [], [], [], [], [], 0

    def begin(self, config, lanes):
        self.begun.append((config, lanes))

    def line(self, text):
        self.lines.append(text)

    def progress(self, progress):
        self.progresses.append(progress)

    def points(self, points):
        self.received.append(points)

    def measures(self, points):
        self.measured.append(points)

    def close(self):
        self.closed += 1


class Failing(Observer):
    """Raises an exception when it is called for the third time with points."""

    def __init__(self, error=None):
        self.calls, self.error = 0, error or ValueError("no such\nserver")

    def points(self, points):
        self.calls += 1
        if self.calls == 3:
            raise self.error


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples)


@pytest.mark.parametrize("lanes_per_chunk", [0, 4])
def test_points_are_the_curves_of_the_dataset_at_their_coordinates(lanes_per_chunk, data):
    watching = Everything()
    chunks = {"seeds": [7, 3], "devices": 2, "lanes_per_chunk": lanes_per_chunk}
    made = sweep(data, observers=[watching], **chunks, **SETTINGS, **AXES)
    curves = {"loss", "loss_reconstruction", "loss_kl", "loss_weight_decay"}
    seen = {name: np.full_like(made[name], np.nan) for name in curves}
    number = 0
    for points in watching.received:
        assert list(points.coordinates) == [*AXES, "seed"] and set(points.values) == curves
        for i in range(len(points.coordinates["seed"])):
            lane = {name: values[i] for name, values in points.coordinates.items()}
            place = [int(np.flatnonzero(made[name].values == value)[0]) for name, value in lane.items()]
            step = int(np.flatnonzero(made["step"].values == points.step)[0])
            for name in curves:
                seen[name][(*place, step)] = points.values[name][i]
            number += 1
    assert number > 4 * 105  # Lanes whose whole chunk has diverged log no more points.
    for name in curves:
        np.testing.assert_array_equal(seen[name], made[name].values)
    assert [one.phase for one in watching.progresses][:1] == ["compiling"]
    assert watching.progresses[-1].step == watching.progresses[-1].steps
    assert any(line.startswith("plan: ") for line in watching.lines)


def test_lanes_are_measured_while_they_are_trained_as_they_would_be_if_they_ended_there(data):
    constant = {"warmup": 0.0, "beta_warmup": 0.0, "final_learning_rate": 1.0, "batch_size": 32, "d_hidden": 5}
    watching = Everything()
    whole = sweep(data, **constant, steps=1000, beta=[0.5, 2.0], observers=[watching], devices=2)
    [(config, lanes)] = watching.begun
    assert config["beta"] == [0.5, 2.0] and config["steps"] == 1000 and lanes == 2 and watching.closed == 1
    assert [points.step for points in watching.measured] == [200, 400, 600, 800, 1000]
    for points in (watching.measured[1], watching.measured[-1]):
        ended = sweep(data, **constant, steps=points.step, beta=[0.5, 2.0], devices=2)
        assert points.coordinates["beta"].tolist() == [0.5, 2.0]
        assert set(points.values) == {"reconstruction", "explained_variance", "l0", "dead_fraction"}
        for name, values in points.values.items():
            np.testing.assert_allclose(values, ended[f"eval_{name}"].values[:, 0], rtol=1e-5)
    unwatched = sweep(data, **constant, steps=1000, beta=[0.5, 2.0], devices=2)
    for name in whole.variables:  # To the bit.
        np.testing.assert_array_equal(whole[name], unwatched[name])


@pytest.mark.parametrize(
    ("steps", "samples_per_step", "rows"), [(10_000, 128, 512), (10_000, 128, 60), (50, 128, 512), (300, 60_000, 512)]
)
def test_measuring_takes_the_samples_of_at_most_a_hundredth_of_the_training(steps, samples_per_step, rows):
    stops = watched_steps(steps, samples_per_step, rows)
    assert len(stops) * rows <= 0.01 * steps * samples_per_step and set(stops) <= set(windows(steps)[:-1])
    assert len(stops) == {(10_000, 512): 24, (10_000, 60): 39, (50, 512): 0, (300, 512): 39}[steps, rows]


def test_an_observer_that_fails_is_named_to_the_others_and_ends_nothing(data):
    first, failing, last = Everything(), Failing(), Everything()
    watched = sweep(data, d_hidden=5, **SETTINGS, observers=[first, failing, last])
    for watching in (first, last):
        [line] = [line for line in watching.lines if line.startswith("warning")]
        assert line == (
            "warning: an observer must not raise an exception: got ValueError(no such) from Failing; "
            "the training goes on without it"
        )
        assert len(watching.received) == 105
    assert failing.calls == 3
    assert np.all(np.isfinite(watched["loss"]))


def test_the_failure_of_the_only_observer_is_a_warning(data):
    failing = Failing()
    with pytest.warns(RuntimeWarning, match=r"got ValueError\(no such\) from Failing"):
        sweep(data, d_hidden=5, **SETTINGS, observers=[failing])
    assert failing.calls == 3


def test_two_observers_that_fail_at_each_others_failure_are_both_left_out():
    class Touchy(Observer):
        def line(self, text):
            raise OSError(text)

    watching = Everything()
    everyone = Observers([Touchy(), Touchy(), watching])
    everyone.line("first")
    everyone.line("second")
    assert [line for line in watching.lines if not line.startswith("warning")] == ["first", "second"]
    assert sum(line.startswith("warning") for line in watching.lines) == 2


def test_an_interrupt_from_the_keyboard_still_ends_a_training(data):
    failing, after = Failing(KeyboardInterrupt()), Everything()
    with pytest.raises(KeyboardInterrupt):
        sweep(data, d_hidden=5, **SETTINGS, observers=[failing, after])
    assert failing.calls == 3 and len(after.received) == 2

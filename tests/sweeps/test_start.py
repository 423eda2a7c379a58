"""Lanes that start from those of a finished sweep."""

import numpy as np
import pytest

from sae_jax import UserError, as_data, sweep
from sae_jax.data import DataConfig
from sae_jax.storage import results
from sae_jax.storage.arrays import in_memory
from sae_jax.storage.states import load_states, save_states
from sae_jax.sweeps.extend import extend
from sae_jax.sweeps.keep import keep_parameters
from sae_jax.sweeps.origin import origin_of
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.recovery import Interrupted, saving, wait
from sae_jax.sweeps.study import check_states_end
from sae_jax.sweeps.sweep import train
from tests.watching import Watcher

SETTINGS = {"d_hidden": 4, "batch_size": 20, "steps": 30, "rho": [0.05, 0.1], "tied": [False, True]}
# Nothing depends on how many steps there are in all.
STEADY = {"warmup": 0.0, "final_learning_rate": 1.0, "beta_warmup": 0.0, "k_warmup": 0.0}
LBFGS_HAS_NO = ("batch_size", "warmup", "final_learning_rate", "learning_rate", "beta_warmup", "k_warmup")
# So small that parameters stay as they are.
STILL = {"optimizer": "sgd", "learning_rate": 1e-12, "momentum": 0.0, "steps": 1}


@pytest.fixture(scope="module")
def data(samples):
    return as_data(samples[:200])


@pytest.fixture(scope="module")
def before(data):
    return sweep(data, seeds=3, **SETTINGS)


def trained(data, settings, origin=None, recovery=None, seeds=2):
    """A sweep, the states that its lanes end with, and what observers have received."""
    watching, states = Watcher(), {}
    study = prepare(data, seeds=seeds, engine=Engine(), observer=watching, origin=origin, **settings)
    return train(study, watching, in_memory(), recovery, watched=False, states=states), states, watching


def same_lanes(made, whole, but=()):
    for name in sorted({*whole.data_vars} - {*but}):
        assert made[name].values.tobytes() == whole[name].values.tobytes(), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.1, "corruption": "gaussian", "noise": 0.1},
        {"optimizer": "lbfgs", "estimator": "batch", "steps": 6},
        {"estimator": "ema", "k": 2, "l1": 0.01},
    ],
    ids=["adam", "sgd and noise", "lbfgs", "k-sparse"],
)
def test_training_on_from_states_is_one_longer_training_to_the_bit(settings, data):
    settings = SETTINGS | STEADY | settings
    if settings.get("optimizer") == "lbfgs":
        settings = {name: value for name, value in settings.items() if name not in LBFGS_HAS_NO}
    steps = settings["steps"]
    first, states, _ = trained(data, settings)
    made, states_at_end, watching = trained(data, settings, origin_of(first, "the run", states=states))
    whole, states_of_whole, _ = trained(data, settings | {"steps": 2 * steps})
    curves = [name for name, one in whole.data_vars.items() if "step" in one.dims]
    same_lanes(made, whole, curves)
    assert {name: one.tobytes() for name, one in states_at_end.items()} == {
        name: one.tobytes() for name, one in states_of_whole.items()
    }
    for name in curves:
        np.testing.assert_array_equal(made[name], whole[name].sel(step=slice(steps + 1, None)))
    [line] = [line for line in watching.lines if line.startswith("starting from")]
    assert f"go on after step {steps}" in line


def test_schedules_span_the_steps_of_both(data):
    settings = SETTINGS | {"rho": 0.05, "tied": False, "optimizer": "sgd", "beta": 0.0, "warmup": 0.0}
    settings |= {"final_learning_rate": 0.0, "steps": 10}
    first, states, _ = trained(data, settings)
    made, *_ = trained(data, settings, origin_of(first, "the run", states=states))
    still, *_ = trained(data, settings | {"warmup": 1.0, "steps": 1}, origin_of(first, "the run", states=states))
    # Alone its rate had come down to nothing; of twice the steps it stands at a half of the cosine.
    assert float(abs(made["encoder_weight"] - first["encoder_weight"]).max()) > 1e-4
    assert float(abs(still["encoder_weight"] - first["encoder_weight"]).max()) > 0


def test_states_of_another_optimizer_leave_the_parameters_alone(data):
    first, states, _ = trained(data, SETTINGS)
    made, _, watching = trained(data, SETTINGS | STILL, origin_of(first, "the run", states=states))
    np.testing.assert_allclose(made["encoder_weight"], first["encoder_weight"], atol=1e-7)
    assert any("its states do not fit this optimizer" in line for line in watching.lines)


@pytest.mark.parametrize("how", ["parameters", "states", "states without parameters"])
def test_every_lane_starts_from_the_one_of_its_values_and_seed(how, before, data):
    origin = origin_of(before, "the run")
    if how != "parameters":
        first, states, _ = trained(data, SETTINGS | STEADY, seeds=3)
        if how == "states without parameters":
            first = keep_parameters(first, "none", in_memory())
        origin = origin_of(first, "the run", states=states)
    fewer = SETTINGS | STILL | {"rho": [0.1, 0.05], "tied": True, "beta": [1.0, 3.0]}
    made, *_ = trained(data, fewer, origin, seeds=[2, 0])
    expected = before if how == "parameters" else trained(data, SETTINGS | STEADY, seeds=3)[0]
    for beta in (1.0, 3.0):
        there = expected["encoder_weight"].sel(tied=True, rho=[0.1, 0.05], seed=[2, 0])
        np.testing.assert_allclose(made["encoder_weight"].sel(beta=beta), there, atol=1e-7)


def test_lanes_whose_states_an_earlier_version_left_out_are_no_start(data):
    rates = {"d_hidden": 4, "batch_size": 20, "steps": 5, "learning_rate": [0.001, 0.1]}
    first, states, _ = trained(data, rates)
    states = {name: values.copy() for name, values in states.items()}
    for values in states.values():
        values[1] = 0
    with pytest.raises(UserError, match=r"those of every lane: got none of 2 lanes; remove state\.safetensors there"):
        trained(data, rates, origin_of(first, "the run", states=states))
    trained(data, rates | {"learning_rate": 0.001}, origin_of(first, "the run", states=states))
    first["diverged_at"][1] = 0  # These took no step.
    trained(data, rates, origin_of(first, "the run", states=states))


def test_lanes_that_read_the_same_from_other_starts_on_are_trained_each(data):
    rates = {"d_hidden": 4, "batch_size": 20, "steps": 5, "learning_rate": [0.001, 0.1]}
    first, states, _ = trained(data, rates)
    unread = rates | {"optimizer": "lbfgs", "estimator": "batch", "steps": 2}
    del unread["batch_size"]
    second, states, watching = trained(data, unread, origin_of(first, "the run", states=states))
    assert len(watching.lanes) == 4
    alone, *_ = trained(data, unread | {"learning_rate": 0.1}, origin_of(first, "the run"))
    same_lanes(second.isel(learning_rate=1), alone)
    # And once more, from the states of each.
    third, *_ = trained(data, unread, origin_of(second, "the second run", states=states))
    assert np.all(third["loss"].isel(step=0) < second["loss"].isel(step=0))
    assert np.all(third["loss"].isel(learning_rate=0) != third["loss"].isel(learning_rate=1))


def test_lanes_of_fewer_units_start_from_what_they_have(data):
    before = sweep(data, **SETTINGS | {"d_hidden": [3, 5], "tied": False})
    made = sweep(data, start_from=before, **STILL)
    np.testing.assert_allclose(made["encoder_weight"], before["encoder_weight"], atol=1e-7)
    assert np.isnan(made["encoder_weight"].sel(d_hidden=3)[..., 3:, :]).all()


def test_the_best_parameters_begin_as_those_that_it_starts_from(before, data):
    made = sweep(data, start_from=before, **STILL | {"patience": 1, "steps": 3})
    np.testing.assert_allclose(made["encoder_weight"], before["encoder_weight"].isel(seed=[0]), atol=1e-7)


def test_settings_that_are_not_given_are_as_they_were_and_its_name_is_in_the_results(before, data, tmp_path):
    results.save(before, tmp_path)
    made = sweep(data, start_from=tmp_path, seeds=[1], beta=3.0, **STILL)
    assert made["rho"].values.tolist() == [0.05, 0.1] and made["loss"].dims == ("rho", "tied", "seed", "step")
    assert int(made["d_hidden"]) == 4 and float(made["beta"]) == 3 and made.attrs["started_from"] == str(tmp_path)
    with pytest.raises(UserError, match=r"cannot extend the sweep: its lanes must have started at random: got"):
        extend(made, data, rho=[0.05, 0.1, 0.2])


def test_samples_are_normalised_as_those_that_training_began_with(samples):
    before = sweep(samples, normalize="standardize", output="linear", d_hidden=4, steps=3)
    moved = 3 * samples[:300] + 1
    made = sweep(moved, start_from=before, steps=1)
    for name in ("input_centre", "input_scale"):
        np.testing.assert_array_equal(made[name], before[name])
    anew = sweep(moved, start_from=before, normalize="centre", steps=1)
    np.testing.assert_allclose(anew["input_centre"], moved.mean(axis=0), atol=0.2)
    assert (anew["input_scale"] == 1).all()


def test_a_resumed_training_goes_on_from_the_same_states(data, tmp_path):
    settings = SETTINGS | STEADY | {"steps": 400}
    first, states, _ = trained(data, settings | {"steps": 30})
    origin = origin_of(first, "the run", states=states)
    whole, *_ = trained(data, settings, origin)
    asked = iter([False, False, True])
    with saving(tmp_path, every=0.0, asked_to_end=lambda: next(asked, True)) as recovery:
        with pytest.raises(Interrupted):
            trained(data, settings, origin, recovery)
        wait(recovery)
    with saving(tmp_path) as recovery:
        assert recovery.state is not None and 0 < recovery.state[1].step < 400
        made, *_ = trained(data, settings, origin, recovery)
    same_lanes(made, whole)


@pytest.mark.parametrize(
    ("settings", "seeds", "message"),
    [
        ({"rho": [0.05, 0.2]}, 1, r"rho must be one of those that it has, 0\.05, 0\.1: got 0\.2; name one"),
        ({}, [1, 7], r"seeds must be among its own, 0, 1, 2: got 7; name some"),
        ({"d_hidden": 5}, 1, r"decoder_weight must be \[4, 16\], as it is there: got \[5, 16\] here; use the same"),
    ],
    ids=["a value", "a seed", "units"],
)
def test_lanes_without_one_to_start_from_are_refused(settings, seeds, message, before, data):
    with pytest.raises(UserError, match=f"^cannot start from the sweep: {message}"):
        sweep(data, start_from=before, seeds=seeds, **settings)


def test_samples_of_another_width_are_refused(before, samples):
    with pytest.raises(UserError, match=r"samples must have the 16 inputs that training began with: got 9; use"):
        sweep(samples[:, :9], start_from=before)


def test_parameters_that_were_not_kept_are_refused(before, data):
    for keep in ("best", "none"):
        with pytest.raises(UserError, match=r"--start-from needs the parameters of every lane: got a run that kept"):
            sweep(data, start_from=keep_parameters(before, keep, in_memory()))


def test_states_of_lanes_that_keep_earlier_parameters_are_refused(data):
    study = prepare(data, seeds=1, engine=Engine(), observer=Watcher(), patience=5)
    with pytest.raises(UserError, match=r"keep_state needs lanes that end at their last step: got patience 5"):
        check_states_end(study)


def test_states_are_read_as_they_were_written_and_a_damaged_file_is_refused(tmp_path):
    assert load_states(tmp_path) == {}
    states = {
        "0.step": np.asarray([[3, -1]], np.int32),
        "0.params['w']": np.linspace(0, 1, 6, dtype=np.float32).reshape(1, 2, 3),
        "0.opt_state[0]": np.asarray([[True, False]]),
    }
    save_states(states, tmp_path)
    for name, values in load_states(tmp_path).items():
        assert values.dtype == states[name].dtype and np.array_equal(values, states[name])
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=r"a run's training states must be readable: .*; train the run again"):
        load_states(tmp_path)


def test_the_data_set_of_the_run_is_read_again(tmp_path):
    config = DataConfig(dataset="digits", samples=200)
    before = sweep(config, d_hidden=4, steps=2)
    made = sweep(start_from=before, **STILL)
    assert str(made["dataset"].values) == "digits" and int(made["samples"]) == 200
    np.testing.assert_allclose(made["encoder_weight"], before["encoder_weight"], atol=1e-7)


def test_a_running_threshold_begins_anew_where_parameters_were_not_kept(data):
    settings = {"model": "batch_topk", "d_hidden": 8, "k": 2.0, "batch_size": 20, "steps": 30}
    first, states, _ = trained(data, settings)
    other = settings | {"optimizer": "sgd", "learning_rate": 1e-12, "momentum": 0.0, "steps": 2}
    for keep in ("best", "none"):
        kept = keep_parameters(first, keep, in_memory())
        made, *_ = trained(data, other, origin_of(kept, "the run", states=states))
        assert (made["threshold"] > 0).all() and np.isfinite(made["eval_l0"]).all()
    made, *_ = trained(data, other | {"steps": 0}, origin_of(first, "the run", states=states))
    np.testing.assert_array_equal(made["threshold"], first["threshold"])

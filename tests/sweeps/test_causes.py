"""What is said of lanes that learned nothing, and of lanes that stopped early."""

import warnings

import numpy as np
import pytest
import xarray as xr

import sae_jax
from sae_jax import DataConfig, sweep
from sae_jax.settings import SweepWarning
from sae_jax.sweeps.causes import unlearned
from sae_jax.sweeps.lane_warnings import stopped_early, warnings_of

SMALL = {
    "d_hidden": 6,
    "batch_size": 32,
    "steps": 300,
    "rho": 0.05,
    "weight_decay": 1e-4,
    "beta": 0.1,
    "beta_warmup": 0.0,
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": 1e-6}, "and their error hardly moved; try a larger learning_rate, or more steps"),
        ({"steps": 40, "learning_rate": 2e-3}, "and their error was still falling at the end; try more steps"),
        (
            {"beta": 50.0, "rho": 0.01, "learning_rate": 0.01},
            "and most of their units are active on no sample; try a larger rho, a lower beta, a lower weight_decay or",
        ),
        (
            {"l1": 5.0, "beta": 0.0, "activation": "relu", "learning_rate": 0.01},
            "and most of their units are active on no sample; try a lower weight_decay, a lower l1 or more steps",
        ),
        (
            {"learning_rate": 2.0},
            "and their error rose; try a lower learning_rate",
        ),
    ],
    ids=["slow", "short", "penalised", "l1", "wild"],
)
def test_the_likely_cause_of_learning_nothing_is_named(samples, settings, said):
    made = sweep(samples, **SMALL | settings)
    assert float(made["eval_explained_variance"].max()) < 0.05
    [line] = [line for line in warnings_of(made) if "next to nothing" in line]
    assert line.startswith("warning: 1 of 1 lanes explain less than 5% of the held-out variance, next to nothing, ")
    assert said in line


@pytest.fixture(scope="module")
def faces():
    """Samples as pictures of faces are: large, positive, far from 0, and of few causes."""
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8))
    places = rng.uniform(-1, 1, size=(6, 2, 1, 1))
    parts = np.exp(-((u - places[:, 0]) ** 2 + (v - places[:, 1]) ** 2) / 0.1).reshape(6, -1)
    mean = 120 + 60 * np.exp(-(u**2) - v**2).ravel()
    return mean + 25 * rng.normal(size=(400, 6)) @ parts + 3 * rng.normal(size=(400, 64))


OF_FACES = {"d_hidden": 10, "output": "linear", "batch_size": 32, "steps": 1000, "rho": 0.1, "beta": 1.0}


def test_on_samples_far_from_0_the_hint_mends_it(faces):
    with pytest.warns(SweepWarning, match="less than their mean does, from which they are far") as caught:
        made = sweep(faces, **OF_FACES)
    [line] = [str(one.message) for one in caught]
    assert line.endswith("||mean|| is 14 times ||std||; try normalize standardize")
    assert made["eval_explained_variance"].item() < -1 and made["input_gamma"].item() == pytest.approx(14, abs=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SweepWarning)
        mended = sweep(faces, **OF_FACES, normalize="standardize")
    assert mended["eval_explained_variance"].item() > 0.4
    lane = sae_jax.open(mended).best()
    restored = lane.reconstruct(faces)  # As the samples were: large, and far from 0.
    assert 1 - np.sum((restored - faces) ** 2) / np.sum((faces - faces.mean(0)) ** 2) > 0.4


def test_only_the_samples_of_the_lanes_that_are_blamed_are_called_far(faces):
    with pytest.warns(SweepWarning, match="2 of 2 lanes"):
        made = sweep(faces, **OF_FACES | {"rho": [0.1, 0.2]})
    along = xr.DataArray([0.0, 1.0], dims="rho")  # The second lane has learned, on samples even further away.
    explained = made["eval_explained_variance"].where(along == 0, 0.5)
    changed = made.assign(input_gamma=made["input_gamma"] + 50 * along, eval_explained_variance=explained)
    [line] = [line for line in unlearned(changed) if "far" in line]
    assert line.startswith("warning: 1 of 2 lanes") and "||mean|| is 14 times" in line


@pytest.mark.parametrize(
    ("centre", "gamma", "said"),
    [
        ("zero", 1.5, "still falling at the end; try more steps"),
        ("zero", 14.0, "||mean|| is 14 times ||std||; try normalize standardize"),
        ("mean", 14.0, "still falling at the end; try more steps"),
        ("median", 14.0, "still falling at the end; try more steps"),
    ],
)
def test_a_dictionary_is_told_of_far_samples_only_where_it_starts_at_0_and_more_steps_do_not_reach_them(
    centre, gamma, said
):
    digits, settings = DataConfig(dataset="digits"), {"model": "relu", "d_hidden": 32, "learning_rate": 1e-3}
    with pytest.warns(SweepWarning, match="still falling at the end; try more steps"):
        made = sweep(digits, **settings, steps=20)
    assert made["input_gamma"].item() == pytest.approx(1.48, abs=0.01)
    [line] = unlearned(made.assign_coords(centre=centre).assign(input_gamma=made["input_gamma"] * 0 + gamma))
    assert line.endswith(said)
    assert sweep(digits, **settings, steps=500)["eval_explained_variance"].item() > 0.6  # The hint mends it.


@pytest.mark.parametrize("changes", [{"beta": 10.0}, {"rho": 0.2}], ids=["a lower beta", "a larger rho"])
def test_where_beta_is_too_strong_for_rho_either_hint_mends_it(faces, changes):
    strong = OF_FACES | {"normalize": "standardize", "rho": 0.02, "beta": 1000.0}
    with pytest.warns(SweepWarning, match="try a lower beta or a larger rho") as caught:
        sweep(faces, **strong)
    assert ", and most of their units are as active on every sample, which meets the penalty and" in str(caught[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SweepWarning)
        assert sweep(faces, **strong | changes)["eval_explained_variance"].item() > 0.3


def test_an_output_that_is_bounded_reaches_samples_far_from_0(samples):
    far = 0.9 + 0.1 * samples / np.abs(samples).max()
    lines = warnings_of(sweep(far, **SMALL | {"learning_rate": 1e-6}))
    assert lines and not any("far" in line for line in lines)


def test_lanes_that_learned_and_lanes_that_diverged_are_not_among_them(samples):
    made = sweep(samples, **SMALL | {"learning_rate": [1e-6, 0.02, 1e38], "ema_decay": [0.5, 0.6], "steps": 600})
    [line] = [line for line in warnings_of(made) if "next to nothing" in line]
    assert line.startswith("warning: 2 of 6 lanes")
    [line] = [line for line in warnings_of(made) if "non-finite" in line]
    assert line.startswith("warning: 2 of 6 lanes")
    assert warnings_of(made.drop_vars(["eval_explained_variance", "diverged_at"])) == []


def test_lanes_that_stopped_early_are_counted(samples):
    few, settings = samples[:60], {"d_hidden": 30, "batch_size": 20, "steps": 1000, "beta": 0.0, "weight_decay": 0.0}
    settings |= {"final_learning_rate": 1.0, "beta_warmup": 0.0, "learning_rate": [1e-5, 0.02], "seeds": 3}
    made = sweep(few, patience=25, **settings)
    stopped = made["stopped_at"].sel(learning_rate=0.02).values.ravel()
    assert (stopped > 0).all()
    assert stopped_early(made) == [f"3 of 6 lanes stopped early, median step {np.sort(stopped)[1]}"]
    assert stopped_early(sweep(few, **settings)) == [] == stopped_early(made.drop_vars("stopped_at"))

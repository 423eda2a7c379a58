"""What is said of lanes that learned nothing, and of lanes that stopped early."""

import numpy as np
import pytest

from sae_jax import sweep
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
            "and most of their units are active on no sample; try a larger rho, a lower beta, a lower weight_decay, a "
            "lower l1 or more steps",
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

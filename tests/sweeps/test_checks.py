"""Settings of samples and of transcoders that no lane would read; where one lane does, none is refused."""

import numpy as np
import pytest

from sae_jax import DataConfig, UserError, sweep
from tests.watching import Watcher

SMALL = {"d_hidden": 4, "steps": 2, "batch_size": 20, "samples": 60, "progress": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch_size": 9}, "patch_size must have an effect: got 9 beside dataset digits; leave it out"),
        ({"patch_size": [8, 9]}, r"patch_size must have an effect: got \[8, 9\] beside dataset digits"),
        (
            {"model": "topk", "k": 2, "skip": [False, True]},
            "skip needs targets, to which it maps inputs: got .* without; add t",
        ),
    ],
)
def test_what_no_lane_reads_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        sweep(DataConfig(dataset="digits"), **SMALL, **given)


@pytest.mark.parametrize(
    ("given", "programs"),
    [
        ({"patch_size": 8, "whiten": True}, 1),  # As they are by themselves.
        ({"dataset": ["digits", "patches"], "patch_size": 9, "normalize": "ufldl"}, 2),
        ({"model": "topk", "k": 2, "skip": False}, 1),
        ({"momentum": 0.5}, 1),  # Of training, which a reader may have left from another optimizer.
    ],
)
def test_what_a_lane_reads_or_what_is_as_by_default_is_not(given, programs):
    made = sweep(DataConfig(dataset="digits"), **SMALL, **given)
    assert made["eval_l0"].size == programs


def test_lanes_without_one_fixed_loss_are_not_trained_by_lbfgs_and_are_named(samples):
    with pytest.raises(UserError, match=r"got target_l0 0.0 2.0; use target_l0 0$"):
        sweep(samples, "relu", target_l0=[0, 2], optimizer="lbfgs", d_hidden=4)
    with pytest.raises(UserError, match="got jumprelu, whose jumps have none"):
        sweep(samples, ["relu", "jumprelu"], optimizer="lbfgs", d_hidden=4)
    both = sweep(samples, ["relu", "matching_pursuit"], optimizer="lbfgs", d_hidden=4, k=1, rows="free", steps=2)
    assert np.all(np.isfinite(both["loss"]))


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({"momentum": 0.5}, ["momentum 0.5 has no effect: optimizer adam does not read it"]),
        (
            {"optimizer": ["sgd", "adam"], "momentum": 0.5, "noise": 0.1},
            ["noise 0.1 has no effect: corruption none does not read it"],
        ),
        ({"noise": [0.3]}, ["noise [0.3] has no effect: corruption none does not read it"]),
        (
            {"model": ["relu", "jumprelu"], "target_weight": 0.5},
            ["target_weight 0.5 has no effect: target_l0 0.0 does not read it"],
        ),
        (
            {"momentum": [0.5, 0.6]},
            ["1 of 2 lanes differ only in momentum, which optimizer adam does not read: trained once"],
        ),
        ({"momentum": 0.9, "optimizer": "sgd"}, []),
    ],
    ids=["one", "one of several", "an axis of one", "of one model", "an axis", "none"],
)
def test_what_was_given_of_training_and_no_lane_reads_is_said(samples, given, lines):
    watcher = Watcher()
    sweep(samples, d_hidden=4, steps=2, batch_size=20, observers=[watcher], **given)
    assert [line for line in watcher.lines if "read it" in line or "differ only" in line] == lines

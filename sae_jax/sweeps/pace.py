"""How far a training goes until the next question: how many steps a call takes, and when lanes are saved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sae_jax.training.lane import windows

# A run is asked to end at any moment; so long it may compute before it looks up. Every time it does, lanes are copied,
# which takes large ones a seventh of a step's time.
CALL_SECONDS = 3.0
# What is shorter would leave the devices waiting for the host.
SHORT_SECONDS = 0.3
GROWTH = 4
ENDLESS = 2**30
# How often lanes are measured while they are trained, and on how many samples: so often that the samples measured, of
# which nothing but the forward pass is computed, are at most this share of those trained on.
MOST_WATCHED, WATCHED_ROWS, WATCHED_SHARE = 40, 512, 0.01


class NextCall(NamedTuple):
    """What comes next in a training.

    Attributes:
        steps: the most steps of the next call.
        ahead: whether the call is made while the one before it still runs.
        save, end: whether lanes are saved, and the training ends, before it.
    """

    steps: int = ENDLESS
    ahead: bool = True
    save: bool = False
    end: bool = False


FIRST_CALL = NextCall(steps=1)


def watched_steps(steps: int, samples_per_step: int, rows: int) -> np.ndarray:
    """Logged steps at which lanes are measured for those who watch; the last step, which is measured anyway, is none.

    Args:
        steps: of the training.
        samples_per_step: that a lane is trained on.
        rows: samples that it is measured on.
    """
    number = int(np.clip(WATCHED_SHARE * steps * samples_per_step / rows, 0, MOST_WATCHED))
    stops = windows(steps)
    places = np.linspace(0, len(stops), number + 1)[1:].astype(int) - 1
    return np.setdiff1d(stops[places], steps)


def next_call(before: NextCall, seconds_per_step: float | None, save: bool, end: bool) -> NextCall:
    """The call after another: so many steps as CALL_SECONDS have room for, and at most GROWTH times as many as before.

    Args:
        before: the call before, or FIRST_CALL.
        seconds_per_step: as measured last, s; None where nothing was measured yet.
        save, end: what is to happen first.
    """
    if seconds_per_step is None:
        return NextCall(before.steps, True, save, end)
    most = min(GROWTH * before.steps, ENDLESS)
    steps = int(np.clip(CALL_SECONDS / max(seconds_per_step, 1e-9), 1, most))
    return NextCall(steps, seconds_per_step * steps < SHORT_SECONDS, save, end)

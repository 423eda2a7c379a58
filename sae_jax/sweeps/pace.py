"""How far a training goes until the next question: how many steps a call takes, and when lanes are saved."""

from __future__ import annotations

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


def call_size(before: int, seconds_per_step: float | None) -> tuple[int, bool]:
    """How far a call goes: so many steps as CALL_SECONDS have room for, and at most GROWTH times as many as before.

    Args:
        before: the most steps of the call before.
        seconds_per_step: as measured last, s; None where nothing was measured yet.

    Returns:
        Its most steps, and whether it is made while the call before it still runs.
    """
    if seconds_per_step is None:
        return before, True
    steps = int(np.clip(CALL_SECONDS / max(seconds_per_step, 1e-9), 1, min(GROWTH * before, ENDLESS)))
    return steps, seconds_per_step * steps < SHORT_SECONDS

"""How a command line names one lane of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_jax.settings import TEXT, UserError, check, setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_jax.analysis.run import Run
    from sae_jax.analysis.trained_lane import TrainedLane

LANE = setting(("",), TEXT, "place of the lane, such as rho=.05 beta=1 seed=0; empty is the best one")
BEST = setting("eval_explained_variance", TEXT, "the measure that tells which is the best one")
AT = setting(("",), TEXT, "the most that other measures of it may be, such as eval_l0=10")


def chosen_lane(run: Run, lane: Sequence[str], best: str, at: Sequence[str]) -> TrainedLane:
    """The lane that the flags --lane, --best and --at name.

    Raises:
        UserError: a word is no NAME=VALUE, or there is no such lane.
    """
    place = pairs("lane", lane)
    if not place:
        limits = {name: _number("at", name, value) for name, value in pairs("at", at).items()}
        return run.best(best, limits)
    fields = run.fields
    return run.lane(**{name: check(fields[name], value) if name in fields else value for name, value in place.items()})


def pairs(flag: str, words: Sequence[str]) -> dict[str, Any]:
    """Words NAME=VALUE as a dict.

    Raises:
        UserError: a word is none, or names something twice.
    """
    values: dict[str, Any] = {}
    for word in filter(None, words):
        name, sign, value = word.partition("=")
        if not (sign and name and value):
            raise UserError(f"--{flag} takes words NAME=VALUE: got {word!r}; write --{flag} rho=.05 seed=0, say")
        name = name.replace("-", "_")
        if name in values:
            raise UserError(f"--{flag} must name {name} once: got it twice; leave one")
        values[name] = value
    return values


def _number(flag: str, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--{flag} must be a number for {name}: got {value!r}; write {name}=10, say") from None

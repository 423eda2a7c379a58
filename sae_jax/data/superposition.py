"""Sparse sums of known directions: samples whose true dictionary is there to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from sae_jax.data import features, sampling
from sae_jax.data.arguments import named_values
from sae_jax.data.checks import check_fits
from sae_jax.data.config import DataConfig
from sae_jax.data.feed import generated
from sae_jax.data.rows import Rows
from sae_jax.data.sampling import Tree, World
from sae_jax.data.truth import Truth
from sae_jax.settings import (
    AT_LEAST_ONE,
    NON_NEGATIVE,
    POSITIVE,
    TRUE_OR_FALSE,
    Range,
    Unread,
    UserError,
    check,
    check_all,
    one_of,
    setting,
    settings_of,
    unknown,
    unread,
)

NAME = "superposition"
DEFAULT_SAMPLES = 36_000
# Numbers of magnitudes that are made at once.
PIECE = 2**24
# Directions are made in double precision, and made less alike beside two moments and a gradient in single.
DIRECTION_BYTES = 36
# Dot products of columns, and their gradient; factors of a correlation, their squares and a copy.
PRODUCT_BYTES, FACTOR_BYTES = 8, 24
# A full correlation matrix has the square of as many numbers, and is made in double precision.
MOST_FULL = 4096
PROBABILITY = Range(low=0, high=1, low_open=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What follows the colon of `superposition:NAME=VALUE,...`.

    Raises:
        UserError: a value is out of range, or values do not go together.
    """

    UNREAD: ClassVar[Unread] = {
        ("firing", "constant"): ("p_min", "p_max", "exponent"),
        ("firing", "zipf"): ("p",),
        ("firing", "linear"): ("p", "exponent"),
        ("firing", "random"): ("p", "exponent"),
        ("correlation", "none"): ("rank", "scale"),
        ("correlation", "full"): ("rank",),
        ("roots", 0): ("branching", "depth", "exclusive", "compensated", "scaled"),
        ("apart_steps", 0): ("apart_rate",),
    }
    features: int = setting(64, AT_LEAST_ONE, "number of features")
    inputs: int = setting(32, AT_LEAST_ONE, "values of a sample")
    firing: str = setting(
        "constant",
        one_of(("constant", "zipf", "linear", "random")),
        "how often features fire: all alike; by Zipf's law or linearly from p_max down to p_min; uniform between them",
    )
    p: float = setting(0.05, PROBABILITY, "probability of every feature to fire (firing constant)")
    p_min: float = setting(0.01, PROBABILITY, "probability of the rarest feature")
    p_max: float = setting(0.3, PROBABILITY, "probability of the most frequent feature")
    exponent: float = setting(1.0, POSITIVE, "of Zipf's law")
    mean: float = setting(1.0, POSITIVE, "mean of the first feature's magnitude", "input unit")
    mean_last: float = setting(0.0, NON_NEGATIVE, "mean of the last one's, linear between; 0 is the same", "input unit")
    std: float = setting(0.3, NON_NEGATIVE, "standard deviation of the magnitudes", "input unit")
    std_spread: float = setting(
        0.0, NON_NEGATIVE, "of it between features, |N(std, std_spread^2)|; 0 is the same", "input unit"
    )
    correlation: str = setting(
        "none", one_of(("none", "low_rank", "full")), "which features fire together, by a Gaussian copula"
    )
    rank: int = setting(25, AT_LEAST_ONE, "rank of the correlation (low_rank)")
    scale: float = setting(0.1, NON_NEGATIVE, "standard deviation of its factor, or of the full matrix's entries")
    roots: int = setting(0, NON_NEGATIVE, "features that others depend on; 0 is no hierarchy")
    branching: int = setting(4, AT_LEAST_ONE, "children of a feature above the last level")
    depth: int = setting(3, AT_LEAST_ONE, "levels below the roots")
    exclusive: bool = setting(True, TRUE_OR_FALSE, "whether one child of a parent fires at most")
    compensated: bool = setting(True, TRUE_OR_FALSE, "whether children fire the more often for what hinders them")
    scaled: bool = setting(True, TRUE_OR_FALSE, "whether a child's magnitude is scaled by its parent's")
    bias: float = setting(0.0, NON_NEGATIVE, "norm of what is added to every sample", "input unit")
    apart_steps: int = setting(200, NON_NEGATIVE, "steps of Adam that make directions less alike", "step")
    apart_rate: float = setting(0.01, POSITIVE, "its learning rate")

    def __post_init__(self) -> None:
        check_all(self)
        if self.firing != "constant" and self.p_min > self.p_max:
            raise UserError(f"p_min must be at most p_max: got {self.p_min:g} and {self.p_max:g}; swap them")
        if self.tree and (counted := self.tree.counted(self.features)) > self.features:
            raise UserError(
                f"features must hold the hierarchy, at least {counted} of {self.roots} roots at branching "
                f"{self.branching} and depth {self.depth}: got {self.features}; use fewer roots, or more features"
            )
        if self.correlation == "full" and self.features > MOST_FULL:
            raise UserError(
                f"correlation full must be of at most {MOST_FULL} features: got {self.features}; use low_rank"
            )

    @property
    def tree(self) -> Tree | None:
        """The hierarchy; None where there is none."""
        if not self.roots:
            return None
        return Tree(self.roots, self.branching, self.depth, self.exclusive, self.scaled)


# SynthSAEBench-16k, and its recipe with a quarter of the features and of the roots in a third of the inputs.
# Source: Chanin et al. 2026, arXiv 2602.14687, version 2 (the recipe of SynthSAEBench-16k).
SYNTHSAEBENCH: dict[str, Any] = {
    **{"features": 16_384, "inputs": 768, "bias": 0.5, "apart_steps": 100, "apart_rate": 3e-4},
    **{"firing": "zipf", "exponent": 0.5, "p_max": 0.4, "p_min": 5e-4},
    **{"mean": 5.0, "mean_last": 4.0, "std": 0.5, "std_spread": 0.5},
    **{"correlation": "low_rank", "rank": 25, "scale": 0.1},
    **{"roots": 128, "branching": 4, "depth": 3, "exclusive": True, "compensated": True, "scaled": True},
}
PRESETS: dict[str, dict[str, Any]] = {
    "synthsaebench": SYNTHSAEBENCH,
    "synthsaebench-4k": SYNTHSAEBENCH | {"features": 4096, "inputs": 256, "roots": 32},
}


def settings_from(argument: str) -> Settings:
    """The settings that NAME=VALUE,... says; preset=NAME stands for those of a preset, beside which others are changes.

    Raises:
        UserError: a name is unknown, is there twice or has no effect, or a value is refused.
    """
    fields = settings_of(Settings)
    given = named_values(NAME, argument, [*fields, "preset"], "features=128,p=.02")
    preset = given.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise unknown(f"preset of {NAME}", preset, PRESETS)
    changes = {name: check(fields[name], value) for name, value in given.items()}
    settings = Settings(**{**PRESETS.get(preset or "", {}), **changes})
    _check_read(settings, changes)
    return settings


def _check_read(settings: Settings, given: Mapping[str, Any]) -> None:
    """Refuse what is given and has no effect beside the rest."""
    values = dataclasses.asdict(settings)
    for name, other in unread(Settings.UNREAD, values).items():
        if name in given:
            raise UserError(
                f"{name} of {NAME} must have an effect: got it beside {other} {values[other]}; leave it out, or change "
                f"{other}"
            )


def read(argument: str, config: DataConfig) -> Rows:
    """Samples of features in superposition: an excerpt, those held out, and the endless stream of batches.

    Args:
        argument: settings, as `settings_from` reads them.
        config: samples, heldout and data_seed are read.

    Raises:
        UserError: as in `settings_from`, or too many samples for memory.
    """
    settings = settings_from(argument)
    number = config.samples or DEFAULT_SAMPLES
    held = max(1, round(number * config.heldout / (1 - config.heldout)))
    _check_world(settings)
    check_fits(number + held, 4 * number * settings.inputs + 5 * held * settings.features + 4 * PIECE)
    with jax.enable_x64(False):
        world = world_of(settings, config.data_seed)
        of_train, of_heldout = jax.random.split(jax.random.fold_in(jax.random.key(config.data_seed), len(NAME)))
        samples = drawn(settings, world, of_train, number)[0]
        heldout, sizes = drawn(settings, world, of_heldout, held, with_magnitudes=True)
    tree = settings.tree
    parents = None if tree is None else tree.parents(settings.features)
    truth = Truth(world.directions, sizes > 0, sizes, parents)
    fire = np.mean(np.sum(sizes > 0, axis=1))
    name = f"{settings.features} features in superposition, {fire:.3g} of which fire on a sample"
    return Rows(samples, name, heldout, stream=generated(sampling.sampler(tree), world), truth=truth)


def _check_world(settings: Settings) -> None:
    """Refuse what `world_of` would find no memory for."""
    number, inputs, rank = settings.features, settings.inputs, settings.rank
    products = inputs**2 if settings.apart_steps else 0
    check_fits(
        f"{number} x {inputs}", DIRECTION_BYTES * number * inputs + PRODUCT_BYTES * products, "features x inputs"
    )
    if settings.correlation == "low_rank":
        check_fits(f"{number} x {rank}", FACTOR_BYTES * number * rank, "features x rank")


def drawn(
    settings: Settings, world: World, key: jax.Array, number: int, with_magnitudes: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Samples [number, inputs], and their magnitudes [number, features] or none of them, in pieces that fit memory."""
    rows = min(number, max(1, PIECE // settings.features))
    samples = np.empty((number, settings.inputs), np.float32)
    sizes = np.empty((number if with_magnitudes else 0, settings.features), np.float32)

    @jax.jit
    def piece(key: jax.Array, world: World) -> tuple[jax.Array, jax.Array]:
        every = sampling.magnitudes(settings.tree, world, key, rows)
        return sampling.as_samples(world, every), every.T

    for turn, start in enumerate(range(0, number, rows)):
        made, every = piece(jax.random.fold_in(key, turn), world)
        samples[start : start + rows] = made[: number - start]
        if with_magnitudes:
            sizes[start : start + rows] = every[: number - start]
    return samples, sizes


def world_of(settings: Settings, seed: int) -> World:
    """What samples are drawn from, the same for the same seed; every part has random numbers of its own."""
    number, tree = settings.features, settings.tree

    def rng(part: int) -> np.random.Generator:
        return np.random.default_rng([seed, part])

    p = {
        "constant": lambda: np.full(number, settings.p),
        "zipf": lambda: features.zipf(number, settings.exponent, settings.p_min, settings.p_max),
        "linear": lambda: np.linspace(settings.p_max, settings.p_min, number),
        "random": lambda: rng(0).uniform(settings.p_min, settings.p_max, number),
    }[settings.firing]()
    if tree and settings.compensated:
        p = features.compensated(p, tree)
    factor, rest = None, None
    if settings.correlation == "low_rank":
        factor, rest = features.low_rank(rng(1), number, settings.rank, settings.scale)
    if settings.correlation == "full":
        factor = features.full_rank(rng(1), number, settings.scale)
    start = rng(2).standard_normal((number, settings.inputs))
    bias = rng(3).standard_normal(settings.inputs)
    arrays = World(
        directions=features.directions(start, settings.apart_steps, settings.apart_rate),
        probabilities=p,
        thresholds=features.thresholds(p),
        means=np.linspace(settings.mean, settings.mean_last or settings.mean, number),
        stds=np.abs(settings.std + settings.std_spread * rng(4).standard_normal(number)),
        bias=settings.bias * bias / np.linalg.norm(bias),
        factor=factor,
        rest=rest,
    )
    return jax.tree.map(lambda part: np.asarray(part, np.float32), arrays)

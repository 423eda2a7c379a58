"""Full-batch L-BFGS beside SciPy's on the UFLDL problem: seconds until a fit costs what SciPy's does at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from scipy.special import expit

from experiments.reproduce.ufldl import FULL_BATCH
from experiments.reproduce.ufldl_patches import BETA, NEAR, PAIRS, RHO, WEIGHT_DECAY, limits
from sae_jax import CLASSIC, Data, DataConfig, keys_of, lane_settings, load, sweep

# Iterations that the engine may take for it, in those of SciPy's fit.
MOST = 2


class Fit(NamedTuple):
    """One fit of SciPy's.

    Attributes:
        cost: at its end.
        seconds: until its cost was within NEAR of that.
        iterations: as many.
    """

    cost: float
    seconds: float
    iterations: int


def against_scipy(samples: int, steps: int, seeds: int) -> dict[str, Any]:
    """Fits from the same starts: SciPy's one after another, ours as the lanes of a sweep, compiled before.

    Both are timed until they come within 0.01% of the cost at which SciPy's fit of the same start ends; ours takes
    twice as many iterations, and of its time counts the share that it needs for that.

    Args:
        samples: patches in the batch.
        steps: iterations of a fit of SciPy's.
        seeds: number of starts.

    Returns:
        For JSON: of both the median seconds and iterations of a fit, and the costs at SciPy's last iteration; how many
        of our fits come as low, and the median ratio of the seconds of those.
    """
    data = load(DataConfig(samples=samples))
    coefficients = {"rho": RHO, "beta": BETA, "weight_decay": WEIGHT_DECAY}
    settings = {"d_hidden": 25, "history_size": PAIRS, **FULL_BATCH, **coefficients}
    fits = [_scipy(data, settings, seed, steps) for seed in range(seeds)]
    for _ in range(2):
        start = time.perf_counter()
        trained = sweep(data, seeds=seeds, steps=MOST * steps, **settings)
        iteration_seconds = (time.perf_counter() - start) / (seeds * MOST * steps)
    curves, taken = trained["loss"].transpose("seed", "step").values, trained["step"].values
    low_enough = curves <= (1 + NEAR) * np.array([fit.cost for fit in fits])[:, None]
    came = np.any(low_enough, axis=1)
    iterations = taken[np.argmax(low_enough, axis=1)]
    ratios = [fit.seconds / (iteration_seconds * mine) for fit, mine in zip(fits, iterations, strict=True)]
    at_end = curves[:, np.searchsorted(taken, steps)]
    return {
        "seconds": {
            "engine": float(iteration_seconds * np.median(iterations[came])),
            "SciPy": float(np.median([fit.seconds for fit in fits])),
        },
        "iterations": {
            "engine": float(np.median(iterations[came])),
            "SciPy": float(np.median([fit.iterations for fit in fits])),
        },
        "cost": {"engine": at_end.tolist(), "SciPy": [fit.cost for fit in fits]},
        "fits": seeds,
        "as low": int(np.sum(came)),
        "ratio": float(np.median(np.array(ratios)[came])),
    }


def _scipy(data: Data, settings: dict[str, Any], seed: int, steps: int) -> Fit:
    """A fit by SciPy's L-BFGS-B in NumPy, float64."""
    params = CLASSIC.init(keys_of(jax.random.key(seed)).init, data.train.shape[1], lane_settings(**settings).model)
    flat, rebuild = ravel_pytree(params)
    cost = numpy_cost(data.train.astype(np.float64), {name: part.shape for name, part in rebuild(flat).items()})
    costs, seconds, start = list[float](), list[float](), time.perf_counter()

    def watch(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        costs.append(float(intermediate_result.fun))
        seconds.append(time.perf_counter() - start)

    scipy.optimize.minimize(
        cost, np.asarray(flat, np.float64), jac=True, method="L-BFGS-B", options=limits(steps), callback=watch
    )
    near = int(np.argmax(np.array(costs) <= (1 + NEAR) * costs[-1]))
    return Fit(costs[-1], seconds[near], near + 1)


def numpy_cost(x: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The exercise's cost and its gradient in NumPy, float64, as a function of flat parameters.

    Args:
        x: samples [samples, d_in].
        shapes: of the parameters, in the order in which they lie in the flat array.
    """
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parts = np.split(flat, ends[:-1])
        w = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        codes = expit(x @ w["encoder_weight"].T + w["encoder_bias"])
        out = expit(codes @ w["decoder_weight"] + w["decoder_bias"])
        mean, error = codes.mean(axis=0), (out - x) / len(x)
        kl = np.sum(RHO * np.log(RHO / mean) + (1 - RHO) * np.log((1 - RHO) / (1 - mean)))
        squares = np.sum(w["encoder_weight"] ** 2) + np.sum(w["decoder_weight"] ** 2)
        value = 0.5 * len(x) * np.sum(error**2) + BETA * kl + 0.5 * WEIGHT_DECAY * squares
        outer = error * out * (1 - out)
        slope = BETA / len(x) * (-RHO / mean + (1 - RHO) / (1 - mean))
        inner = (outer @ w["decoder_weight"].T + slope) * codes * (1 - codes)
        gradients = {
            "encoder_weight": inner.T @ x + WEIGHT_DECAY * w["encoder_weight"],
            "encoder_bias": inner.sum(axis=0),
            "decoder_weight": codes.T @ outer + WEIGHT_DECAY * w["decoder_weight"],
            "decoder_bias": outer.sum(axis=0),
        }
        return float(value), np.concatenate([gradients[name].ravel() for name in shapes])

    return cost

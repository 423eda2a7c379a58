"""Full-batch L-BFGS beside SciPy's on the UFLDL problem: seconds a fit, and the costs that they end at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from scipy.special import expit

from experiments.reproduce.ufldl import FULL_BATCH
from experiments.reproduce.ufldl_patches import BETA, RHO, WEIGHT_DECAY
from sae_jax import CLASSIC, DataConfig, keys_of, lane_settings, load, sweep


def against_scipy(samples: int, steps: int, seeds: int) -> dict[str, Any]:
    """Fits from the same starts: SciPy's one after another, ours as the lanes of a sweep, compiled before.

    Args:
        samples: patches in the batch.
        steps: iterations of a fit.
        seeds: number of starts.

    Returns:
        For JSON: seconds a fit and the largest final cost of both, and the ratio of the seconds.
    """
    data = load(DataConfig(samples=samples))
    coefficients = {"rho": RHO, "beta": BETA, "weight_decay": WEIGHT_DECAY}
    settings = {"d_hidden": 25, "steps": steps, **FULL_BATCH, **coefficients}
    model = lane_settings(**settings).model
    limits = {"maxiter": steps, "maxfun": 10 * steps}
    scipy_costs, scipy_seconds, engine_seconds = [], [], []
    for seed in range(seeds):
        params = CLASSIC.init(keys_of(jax.random.key(seed)).init, data.train.shape[1], model)
        flat, rebuild = ravel_pytree(params)
        start = time.perf_counter()
        cost = numpy_cost(data.train.astype(np.float64), {name: part.shape for name, part in rebuild(flat).items()})
        minimum = scipy.optimize.minimize(
            cost, np.asarray(flat, np.float64), jac=True, method="L-BFGS-B", options=limits
        )
        scipy_costs.append(float(minimum.fun))
        scipy_seconds.append(time.perf_counter() - start)
    for _ in range(2):
        start = time.perf_counter()
        trained = sweep(data, seeds=seeds, **settings)
        engine_seconds.append((time.perf_counter() - start) / seeds)
    return {
        "seconds": {"engine": engine_seconds[-1], "SciPy": float(np.median(scipy_seconds))},
        "cost": {"engine": float(trained["loss"].isel(step=-1).max()), "SciPy": max(scipy_costs)},
        "fits": seeds,
        "ratio": float(np.median(scipy_seconds)) / engine_seconds[-1],
    }


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

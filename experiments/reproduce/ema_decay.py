"""The KL penalty's running mean: how long may it average, at which beta, and what does it save at which batch size?

Ng's CS294A notes, section 3, take the mean activation over all data. With minibatches it is estimated: by a batch's own
mean (lambda 0) or by a running one. Two things follow from the equations.

(1) The estimate lags. Linearised, rho_hat <- lambda rho_hat + (1 - lambda) q and q <- q - kappa rho_hat, with kappa
growing with learning rate and beta. The loop's roots, z^2 - (1 + lambda) z + lambda + (1 - lambda) kappa = 0, are
complex beyond kappa = (1 - lambda) / 4: it rings, with a period near 2 pi / sqrt((1 - lambda) kappa). For each batch
size all lambda x beta are one compiled program, with Adam at a constant learning rate of .005; variances over time are
compared with what sampling gives at frozen parameters, Var(a)/B for a batch mean and (1 - lambda)/(1 + lambda) of that
for the running one. A cell *oscillates* where the batch mean varies over twice as much, *settles* where not even the
running mean does, and *drifts* between: the parameters wander too slowly to show in the batches' own noise.

(2) The penalty is convex, so noise in the estimate biases it: by f''(q) Var(a)/(2B) for the batch mean, and by
(1 - lambda)/(1 + lambda) of that for the running one. Measured by drawing batches at one settled cell's parameters.

    python -m experiments.reproduce ema-decay

About 2 minutes on 2 cores. Expect oscillation in nearly all cells of beta >= 4 that average over 10 batches or more, in
next to none of beta <= 1, with units stuck at 0 or 1 in the corner of the longest averages; a period growing as the
averaging time to the power .5 (but hardly changing with beta, whose scale Adam divides out); and the predicted bias
within 6% from batches of 32 on. Batches of 8 have 20% more than predicted, from the terms of higher order.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.reproduce.checks import Check, expectation
from experiments.reproduce.ema_bias import DECAYS, RHO, Bias, bias_checks, measure_bias
from experiments.reproduce.report import Options, Report
from sae_jax import Data, DataConfig, LaneSettings, encode, init_state, keys_of, lane_settings, load, train_step
from sae_jax.models.base import Key, Params, Scalar
from sae_jax.sweeps.devices import choose_devices, lane_mesh
from sae_jax.sweeps.mapping import over_lanes

SOURCE = "Ng, CS294A notes, section 3, with minibatches"
UNITS, CELLS_PER_BLOCK = 16, 32
TWICE = 2.0
STUCK_SHARE = 0.1
# Beyond this decay oscillations swing from 0 to 1 and are no longer what a linear loop does.
SHORT = 0.97


class Traces(NamedTuple):
    """What is kept of a lane's recorded steps, per unit: means and variances over time, the estimate's period."""

    activation: Array
    batch_variance: Array
    estimate_variance: Array
    sampling_variance: Array
    period: Array


class Phases(NamedTuple):
    """One batch size, [lambda, beta]: medians over seeds and units of variances over sampling's, and of the period."""

    batch_ratio: np.ndarray
    estimate_ratio: np.ndarray
    stuck: np.ndarray
    period: np.ndarray

    @property
    def oscillates(self) -> np.ndarray:
        return self.batch_ratio > TWICE


def run(options: Options) -> Report:
    """Map the phases for each batch size; then measure the bias on a settled cell."""
    quick = options.quick
    side, steps, seeds = (4, 400, 1) if quick else (16, 1400, 2)
    batch_sizes = (64,) if quick else (16, 64, 256)
    decays, betas = 1 - np.logspace(0, -3, side), np.logspace(-1.5, 1.5, side)
    data = load(DataConfig(dataset="digits"))
    phases: dict[int, Phases] = {}
    settled: Params = {}
    for batch_size in batch_sizes:
        traces, params = _train(data, decays, betas, seeds, _settings(batch_size, steps))
        phases[batch_size] = _phases(traces, decays, steps // 2)
        settled = settled or {name: jnp.asarray(value[0, side // 3, side // 2]) for name, value in params.items()}
    codes = np.asarray(encode(settled, data.train, _settings(1, 1)), np.float64)
    bias = measure_bias(codes, (64, 256) if quick else (8, 16, 32, 64, 128, 256), 1000 if quick else 3000)
    checks = _quick_checks(phases[64]) if quick else _phase_checks(phases, decays, betas)
    return Report(checks + bias_checks(bias), _draw(phases, decays, betas, bias))


def _settings(batch_size: int, steps: int) -> LaneSettings:
    return lane_settings(
        d_hidden=UNITS,
        batch_size=batch_size,
        steps=steps,
        reconstruction_loss="half_squared_error",
        rho=RHO,
        weight_decay=1e-4,
        learning_rate=5e-3,
        final_learning_rate=1.0,
    )


def _train(data: Data, decays: np.ndarray, betas: np.ndarray, seeds: int, fixed: LaneSettings) -> tuple[Traces, Params]:
    """Train every cell of lambda x beta with every seed; arrays with leading axes [seed, lambda, beta]."""
    steps, batch_size = fixed.training.steps, fixed.training.batch_size
    recorded = steps // 2

    def lane(train: Array, decay: Scalar, beta: Scalar, key: Key) -> tuple[Traces, Params]:
        model = dataclasses.replace(fixed.model, beta=beta, ema_decay=decay)
        settings = dataclasses.replace(fixed, model=model)
        keys = keys_of(key)

        def step(state: Any, t: Array) -> tuple[Any, tuple[Array, Array, Array]]:
            # Drawn with replacement: a long average over permutations sees whole epochs, whose noise cancels.
            chosen = jax.random.randint(jax.random.fold_in(keys.batches, t), (batch_size,), 0, train.shape[0])
            codes = encode(state.params, train[chosen], settings)
            state, _ = train_step(settings, state, train[chosen])
            return state, (jnp.mean(codes, axis=0), jnp.var(codes, axis=0, ddof=1), state.memory.average)

        start = init_state(keys.init, settings, train.shape[1])
        state = jax.lax.fori_loop(0, steps - recorded, lambda t, state: step(state, t)[0], start)
        state, (means, variances, estimates) = jax.lax.scan(step, state, jnp.arange(steps - recorded, steps))
        traces = Traces(
            activation=jnp.mean(means, axis=0),
            batch_variance=jnp.var(means, axis=0),
            estimate_variance=jnp.var(estimates, axis=0),
            sampling_variance=jnp.mean(variances, axis=0) / batch_size,
            period=_period(estimates),
        )
        return traces, {name: state.params[name] for name in ("encoder_weight", "encoder_bias")}

    grid = [axis.reshape(-1).astype(np.float32) for axis in np.meshgrid(decays, betas, indexing="ij")]
    width = min(CELLS_PER_BLOCK, len(grid[0]))
    blocks = [np.tile(axis.reshape(-1, width), (seeds, 1)) for axis in grid]
    seed_of = np.repeat(np.arange(seeds, dtype=np.uint32), len(blocks[0]) // seeds)
    devices = choose_devices()
    devices = devices[: 1 if len(seed_of) % len(devices) else len(devices)]
    everything = over_lanes(lane, lane_mesh(devices), shared=1, blocks_in_turn=True)
    lanes = jax.device_get(everything(data.train, *blocks, jax.vmap(jax.random.key)(seed_of)))
    return jax.tree.map(lambda leaf: leaf.reshape(seeds, len(decays), len(betas), *leaf.shape[2:]), lanes)


def _period(series: Array) -> Array:
    """Twice the lag of least autocorrelation of [time, units], looked for up to half the time, a line taken out."""
    length = series.shape[0]
    time = jnp.linspace(-1.0, 1.0, length)[:, None]
    centred = series - jnp.mean(series, axis=0, keepdims=True)
    centred = centred - time * (jnp.sum(time * centred, axis=0, keepdims=True) / jnp.sum(jnp.square(time)))
    power = jnp.square(jnp.abs(jnp.fft.rfft(centred, 2 * length, axis=0)))
    products = jnp.fft.irfft(power, axis=0)[: length // 2]
    return 2 * jnp.argmin(products / (length - jnp.arange(length // 2)[:, None]), axis=0)


def _phases(traces: Traces, decays: np.ndarray, recorded: int) -> Phases:
    # A window of T steps holds only part of the slow variance of a long average.
    lags = np.arange(1, recorded)
    inside = [1 - (recorded + 2 * np.sum((recorded - lags) * decay**lags)) / recorded**2 for decay in decays]
    shrunk = ((1 - decays) / (1 + decays) * inside)[None, :, None, None]
    # A unit stuck at 0 or 1 has no sampling noise left to be compared with.
    noise = np.maximum(traces.sampling_variance, 1e-12)
    over = (0, 3)
    return Phases(
        batch_ratio=np.median(traces.batch_variance / noise, axis=over),
        estimate_ratio=np.median(traces.estimate_variance / (noise * shrunk), axis=over),
        stuck=np.mean(np.abs(traces.activation - 0.5) > 0.49, axis=over) > STUCK_SHARE,
        period=np.median(traces.period, axis=over),
    )


def _quick_checks(phases: Phases) -> list[Check]:
    what, still, swings = "variance of the batch mean over sampling's", *phases.batch_ratio[[0, 2], [0, -1]]
    return [
        expectation(f"{what}, least beta", "1", still, 0.7, 1.5, why="one seed and 200 steps"),
        expectation(
            f"{what}, lambda .99, largest beta", "oscillates", swings, low=TWICE, why="what oscillating means here"
        ),
    ]


def _phase_checks(phases: dict[int, Phases], decays: np.ndarray, betas: np.ndarray) -> list[Check]:
    gentle, weak, strong, long = betas <= 0.3, betas <= 1, betas >= 4, decays >= 0.89
    ringing = (decays >= 0.5) & (decays <= SHORT)
    still = [float(np.median(phase.batch_ratio[:, gentle])) for phase in phases.values()]
    at_weak, at_strong = (
        [float(np.mean(phase.oscillates[w])) for phase in phases.values()]
        for w in (np.s_[:, weak], np.ix_(long, strong))
    )
    smallest = phases[min(phases)]
    settled = float(np.median(smallest.estimate_ratio[np.ix_(~long, gentle)]))
    periods = np.concatenate([phase.period[ringing, -1] for phase in phases.values()])
    lengths = np.tile(1 / (1 - decays[ringing]), len(phases))
    slope = float(np.polyfit(np.log(lengths), np.log(periods), 1)[0])
    return [
        expectation(
            "variance of the batch mean over sampling's, beta <= .3, the batch size where it is farthest from 1",
            "1",
            max(still, key=lambda ratio: abs(ratio - 1)),
            0.9,
            1.3,
            why="parameters still wander at a constant learning rate, the more to be seen the larger the batch",
        ),
        expectation(
            f"variance of the running mean over sampling's, beta <= .3, lambda < .9, B {min(phases)}",
            "1",
            settled,
            0.9,
            1.3,
            why="as above",
        ),
        expectation(
            "share oscillating, beta <= 1, the batch size where it is largest",
            "0",
            max(at_weak),
            high=0.05,
            why="a cell or two at the border, of a hundred",
        ),
        expectation(
            "share oscillating, beta >= 4, over 10 batches or more, the batch size where it is least",
            "1",
            min(at_strong),
            low=0.9,
            why="cells in the corner where units are stuck at 0 or 1 no longer oscillate",
        ),
        expectation(
            "power of the averaging time with which the period grows, beta 30",
            "0.5",
            slope,
            0.45,
            0.6,
            why="periods are read in whole cycles of a finite trace; 0 and 1 are what other laws would give",
        ),
    ]


def _draw(phases: dict[int, Phases], decays: np.ndarray, betas: np.ndarray, bias: Bias) -> Figure:
    figure, panels = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    for panel, (size, phase) in zip(panels[0], phases.items(), strict=False):
        image = _draw_phases(panel, phase, np.log10(betas), np.log10(1 - decays))
        panel.set(title=f"batch size {size}", xlabel="beta", ylabel="1 - lambda")
    for panel in panels[0, len(phases) :]:
        panel.axis("off")
    figure.colorbar(image, ax=panels[0], label="log10, variance of rho_hat over sampling's")
    period, absolute, relative = panels[1]
    for (size, phase), marker in zip(phases.items(), "osv", strict=False):
        rings = phase.oscillates[:, -1] & (decays <= SHORT)
        period.plot(1 / (1 - decays[rings]), phase.period[rings, -1], marker, mfc="none", label=f"batch size {size}")
    lengths = np.array([1.0, 1 / (1 - SHORT)])
    period.plot(lengths, 20 * np.sqrt(lengths), color="black", lw=0.8, ls="--", label="power 1/2")
    period.set(yscale="log", xlabel="averaging time 1 / (1 - lambda), steps", ylabel="steps")
    period.set_yticks([20, 50, 100], ["20", "50", "100"])
    period.yaxis.set_minor_formatter(NullFormatter())
    period.set_title(f"period of the oscillation, beta {betas[-1]:.3g}")
    for i, decay in enumerate(DECAYS):
        look = {"color": f"C{i}", "lw": 0.8}
        label = "batch mean" if decay == 0 else f"lambda {decay:g}"
        absolute.plot(bias.sizes, bias.measured[:, i], "o", label=label, **look)
        absolute.plot(bias.sizes, bias.predicted[:, i], "-", **look)
        relative.plot(bias.sizes, bias.measured[:, i] / bias.predicted[:, i], "o-", label=label, **look)
    absolute.set(yscale="log", title="bias of the penalty; lines: predicted", ylabel="nats, sum over units")
    relative.axhline(1, color="black", lw=0.8, ls="--")
    relative.set(title="bias, measured over predicted")
    for panel in panels[1]:
        panel.set_xscale("log")
        panel.legend(frameon=False, fontsize=8)
        panel.grid(alpha=0.25)
    for panel in (absolute, relative):
        panel.set_xlabel("batch size B")
        panel.set_xticks(bias.sizes, [str(size) for size in bias.sizes])
        panel.minorticks_off()
    return figure


def _draw_phases(panel: Axes, phase: Phases, x: np.ndarray, y: np.ndarray) -> QuadMesh:
    image = panel.pcolormesh(x, y, np.log10(phase.estimate_ratio), vmin=0, vmax=7, cmap="viridis", shading="nearest")
    lines = [
        panel.contour(x, y, np.log10(values), [np.log10(TWICE)], colors="white", linestyles=style)
        for values, style in ((phase.batch_ratio, "-"), (phase.estimate_ratio, "--"))
    ]
    handles = [line.legend_elements()[0][0] for line in lines]
    names = ["batch mean at twice sampling's variance; right: oscillates"]
    names += ["running mean at twice its own; above: settles, below: drifts"]
    rows, columns = np.nonzero(phase.stuck)
    if len(rows):
        handles.append(panel.plot(x[columns], y[rows], "x", color="red", ms=5, lw=0)[0])
        names.append(f"over {STUCK_SHARE:.0%} of units stuck at 0 or 1")
    panel.legend(handles, names, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), facecolor="silver")
    for axis, ticks in ((panel.xaxis, (-1, 0, 1)), (panel.yaxis, (-3, -2, -1, 0))):
        axis.set_ticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
    return image

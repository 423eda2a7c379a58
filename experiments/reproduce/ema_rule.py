"""The running mean's rule for the KL penalty beside the exact one: what does averaging gain, and when does it ring?

Ng's CS294A notes, section 3, take the mean activation over all data, and so the gradient over all data. With
minibatches rho_hat is this batch's mean, or a running mean with decay lambda, whose slope is handed to the codes as if
it were the batch's own. Four rules are trained by the same number of steps on digits: the batch mean and lambda .9, .99
and .999, in batches of 8 to 1024, and all data at every step; with Adam at a constant learning rate, and at one that
falls to 0. Measured over all data, at the end of training: the exact cost less that of full-batch training;
|rho_hat - rho| of the true mean activations; and their standard deviation over the last quarter of the steps.

    python -m experiments.reproduce ema-rule

About 3 minutes on 2 cores: 16 units, rho .05, beta 3, 4,000 steps, 3 seeds. Expect that averaging pays in small
batches: at 8 samples lambda .9 halves the batch mean's excess of cost, and lambda .99 leaves a third of its excess of
|rho_hat - rho|, which is .16 rho even with all data, where the penalty and the reconstruction balance. In large batches
the batch mean is the better rule: a running mean lags, and what lags rings. At a constant learning rate lambda .9 keeps
ringing by a quarter of rho, lambda .99 rings for 2,000 steps with swings from .002 to .9, and lambda .999 throws units
between 0 and 1 for good, whatever the batch size; a learning rate that falls stills all but the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reproduce.checks import Check, expectation
from experiments.reproduce.report import Options, Report
from sae_jax import DataConfig, encode, init_state, keys_of, lane_settings, load, train_step
from sae_jax.models.base import Key, Scalar
from sae_jax.training.stopping import heldout_loss

SOURCE = "Ng, CS294A notes, section 3, with minibatches"
UNITS, RHO, BETA = 16, 0.05, 3.0
DECAYS = (0.9, 0.99, 0.999)
AVERAGES = ("batch mean", *(f"lambda {decay:g}" for decay in DECAYS))
SCHEDULES = {"constant": 1.0, "falling": 0.0}
TRACED, RECORD = 64, 10
# By panel: the measure and its title.
PANELS = {
    "cost": ("cost", "exact cost less that with all data"),
    "miss": ("miss", "|rho_hat - rho| / rho"),
    "swing": ("swing", "deviation of rho_hat over time / rho"),
}


class Outcome(NamedTuple):
    """What came of lanes, [rule, size, schedule, seed], measured over all data.

    Attributes:
        cost: the exact cost at the end, nat and squared error.
        miss: mean over units of |rho_hat - rho| / rho, over the last quarter of the steps.
        swing: mean over units of the standard deviation of rho_hat in time / rho, over that quarter.
        trace: mean activations every RECORD steps, [..., record, unit].
    """

    cost: np.ndarray
    miss: np.ndarray
    swing: np.ndarray
    trace: np.ndarray


def run(options: Options) -> Report:
    """Train every rule at every batch size with both schedules, and with all data beside them."""
    steps, seeds, sizes = (400, 1, (TRACED,)) if options.quick else (4000, 3, (8, 16, 32, TRACED, 128, 256, 1024))
    train = load(DataConfig(dataset="digits")).train
    by_size = [
        _joined([_train(train, size, steps, seeds, decays) for decays in ((), DECAYS)], np.concatenate)
        for size in sizes
    ]
    rules = _joined(by_size, lambda parts: np.stack(parts, axis=1))
    full = _joined([_train(train, len(train), steps, seeds, ())], lambda parts: parts[0][0])
    return Report(_checks(rules, full, sizes, options.quick), _draw(rules, full, sizes, steps))


def _joined(outcomes: list[Outcome], join: Callable[[list[np.ndarray]], np.ndarray]) -> Outcome:
    return Outcome(*(join(list(parts)) for parts in zip(*outcomes, strict=True)))


def _train(train: np.ndarray, size: int, steps: int, seeds: int, decays: tuple[float, ...]) -> Outcome:
    """Train by the running means of such decays, or by the batch's own where there are none: [rule, schedule, seed]."""
    fixed = lane_settings(
        d_hidden=UNITS,
        batch_size=size,
        steps=steps,
        estimator="ema" if decays else "batch",
        reconstruction_loss="half_squared_error",
        rho=RHO,
        beta=BETA,
        weight_decay=1e-4,
        learning_rate=5e-3,
    )

    def lane(decay: Scalar, final: Scalar, key: Key) -> tuple[Array, Array]:
        settings = dataclasses.replace(
            fixed,
            model=dataclasses.replace(fixed.model, ema_decay=decay),
            training=dataclasses.replace(fixed.training, final_learning_rate=final),
        )
        keys = keys_of(key)

        def step(t: Array, state: Any) -> Any:
            # Drawn with replacement: a long average over permutations sees whole epochs, whose noise cancels.
            chosen = jax.random.randint(jax.random.fold_in(keys.batches, t), (size,), 0, len(train))
            return train_step(settings, state, train if size == len(train) else jnp.asarray(train)[chosen])[0]

        def record(state: Any, start: Array) -> tuple[Any, Array]:
            state = jax.lax.fori_loop(start, start + RECORD, step, state)
            return state, jnp.mean(encode(state.params, train, settings), axis=0)

        begun = init_state(keys.init, settings, train.shape[1])
        state, trace = jax.lax.scan(record, begun, jnp.arange(0, steps, RECORD))
        return heldout_loss(state.params, jnp.asarray(train), settings), trace

    shape = (max(len(decays), 1), len(SCHEDULES), seeds)
    grid = np.meshgrid(decays or (0.0,), list(SCHEDULES.values()), np.arange(seeds), indexing="ij")
    decay, final, seed = (axis.ravel() for axis in grid)
    lanes = jax.jit(jax.vmap(lane))(
        jnp.asarray(decay, jnp.float32),
        jnp.asarray(final, jnp.float32),
        jax.vmap(jax.random.key)(seed.astype(np.uint32)),
    )
    cost, trace = (np.asarray(leaf).reshape(*shape, *leaf.shape[1:]) for leaf in lanes)
    late = trace[..., -(trace.shape[-2] // 4) :, :]
    return Outcome(
        cost=cost,
        miss=np.mean(np.abs(late - RHO), axis=(-2, -1)) / RHO,
        swing=np.mean(np.std(late, axis=-2), axis=-1) / RHO,
        trace=trace,
    )


def _checks(rules: Outcome, full: Outcome, sizes: tuple[int, ...], quick: bool) -> list[Check]:
    """What the running mean gains in small batches, what it costs, and where it rings."""
    few, many = sizes.index(min(sizes)), sizes.index(max(sizes))
    constant, falling = 0, 1
    batch, short, long, longest = range(len(AVERAGES))
    ringing = rules.swing[longest, many, constant] / rules.swing[batch, many, constant]
    if quick:
        return [expectation("swing, lambda .999 over batch mean", "more", ringing, low=1.5, why="400 steps")]
    excess = rules.miss[:, few, falling] - full.miss[falling]
    still = full.swing[constant]
    return [
        expectation(
            f"B {min(sizes)}, falling rate: exact cost, lambda .9 less batch mean",
            "below 0",
            rules.cost[short, few, falling] - rules.cost[batch, few, falling],
            high=-0.1,
            why="the bias of the batch mean, which averaging takes away: nearly half of what was gained",
        ),
        expectation(
            f"B {min(sizes)}, falling rate: excess of |rho_hat - rho| over that with all data, lambda .99 / batch mean",
            "far below 1",
            excess[long] / excess[batch],
            high=0.5,
            why="half: of the bias (1 - lambda)/(1 + lambda) is left, but the running mean lags",
        ),
        expectation(
            f"B {max(sizes)}, constant rate: exact cost, lambda .9 less batch mean",
            "above 0",
            rules.cost[short, many, constant] - rules.cost[batch, many, constant],
            low=0.03,
            why="large batches have nothing to average away, and the lag remains",
        ),
        expectation(
            f"B {max(sizes)}, constant rate: deviation of rho_hat in time, lambda .999 / batch mean",
            "far above 1",
            ringing,
            low=10,
            why="not noise, which batches of this size hardly have, but ringing",
        ),
        expectation(
            f"B {max(sizes)}, constant rate: deviation of rho_hat in time, all data / batch mean",
            "far below 1",
            still / rules.swing[batch, many, constant],
            high=0.2,
            why="the control: without noise and without lag nothing moves",
        ),
    ]


def _draw(rules: Outcome, full: Outcome, sizes: tuple[int, ...], steps: int) -> Figure:
    layout: Any = [[name for name in SCHEDULES for _ in range(3)], [name for name in PANELS for _ in range(2)]]
    figure, panels = plt.subplot_mosaic(layout, figsize=(13, 8), layout="constrained")
    times = np.arange(RECORD, steps + 1, RECORD)
    looks = {name: {"color": f"C{i}", "lw": 1.2} for i, name in enumerate(AVERAGES)}
    for j, schedule in enumerate(SCHEDULES):
        panel = panels[schedule]
        for name, traces in zip(AVERAGES, rules.trace[:, sizes.index(TRACED), j, 0], strict=True):
            panel.plot(times, _typical(traces), label=name, **looks[name])
        panel.plot(times, _typical(full.trace[j, 0]), color="black", lw=1.2, label="all data")
        panel.axhline(RHO, color="black", lw=0.8, ls=":")
        panel.set(yscale="log", xlabel="step", ylabel="mean activation over all data")
        panel.set_title(f"{schedule} learning rate, batches of {TRACED}: a typical unit")
    for name, (measure, title) in PANELS.items():
        panel, base = panels[name], getattr(full, measure).mean(axis=-1)
        values = getattr(rules, measure).mean(axis=-1)
        if measure == "cost":
            values = values - base
        for rule, of_sizes in zip(AVERAGES, values, strict=True):
            for j, style in enumerate(("o-", "o--")):
                fill = {"mfc": looks[rule]["color"] if j == 0 else "white", "ms": 4}
                panel.plot(sizes, of_sizes[:, j], style, **looks[rule], **fill)
        for j, style in enumerate(("-", "--")):
            if measure != "cost":
                panel.axhline(base[j], color="black", lw=0.8, ls=style)
        panel.set(xscale="log", yscale="log", xlabel="batch size", title=title)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    # The longest average lies far above, and would leave the others no room.
    panels["miss"].set(yscale="linear", ylim=(0.14, 0.36))
    away = rules.miss[AVERAGES.index("lambda 0.999")].mean(axis=-1)
    note = f"lambda 0.999 is above: {away.min():.1f} to {away.max():.1f}"
    panels["miss"].text(
        0.97,
        0.95,
        note,
        color=looks["lambda 0.999"]["color"],
        ha="right",
        va="top",
        transform=panels["miss"].transAxes,
        fontsize=8,
    )
    styles = [
        Line2D([], [], color="black", ls=":", lw=0.8, label="rho"),
        Line2D([], [], color="gray", marker="o", ms=4, label="below: constant rate"),
        Line2D([], [], color="gray", marker="o", mfc="white", ms=4, ls="--", label="falling to 0"),
    ]
    figure.legend(
        handles=[*panels["constant"].get_lines()[: len(AVERAGES) + 1], *styles],
        loc="outside lower center",
        ncols=8,
        frameon=False,
    )
    return figure


def _typical(traces: np.ndarray) -> np.ndarray:
    """The trace of the unit whose logarithm deviates as much over time as half of the units' do, of [record, unit]."""
    deviations = np.std(np.log(traces), axis=0)
    return traces[:, np.argsort(deviations)[len(deviations) // 2]]

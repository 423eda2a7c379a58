"""Contractive autoencoders have the flattest codes: the average norm of the encoder's Jacobian, over five kinds.

Rifai et al. 2011, "Contractive auto-encoders", the table of test errors and average Jacobian norms on MNIST, and the
figure of the Jacobian's singular values. Tied weights, sigmoid codes and outputs, cross-entropy and 1000 units, as
there; weights start as in the authors' later code (cae.py, 2012), at U(+-4 sqrt(6 / (784 + n))), and are trained by its
SGD at .1 in batches of 20, for 7 epochs instead of 20. The published norms are on the scale of the mean squared entry,
||J||_F^2 / (784 x 1000). The published errors are those of a network that is fine-tuned from the codes, and so are
these: the encoder under a softmax layer, by 20 epochs of Adam; after 5 they are 2.5% and 3.4% instead of 1.5% and 1.7%.

    python -m experiments.reproduce contractive --data-dir DIR

Each kind has one coefficient, of two or three that are tried with one seed: that of least error on the last 10,000
training digits after fine-tuning on the others. Then two more seeds are trained.

About half an hour of a processor's time. Expect squared norms below the published ones, 9e-4 without a penalty and
.5e-4 with one of .3.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt

from experiments.reproduce.checks import SECONDARY, Check, Source, expectation, number, order
from experiments.reproduce.minibatches import minimize
from experiments.reproduce.report import Options, Report
from experiments.reproduce.validation import labels_of, split_off
from sae_jax import CLASSIC, Data, LaneSettings, encode, lane_settings, load, sweep
from sae_jax.analysis.probes import accuracy, probe_logits, probe_loss
from sae_jax.models.activations import ACTIVATIONS
from sae_jax.models.base import Key, Params
from sae_jax.models.linear import uniform_weights

SOURCE = "Rifai et al. 2011"
TABLE = Source("Rifai et al. 2011, table of results", SECONDARY)
SAMPLES_OF_SPECTRUM = 40
# Of the fine-tuning, by Adam.
BATCH, RATE = 100, 1e-3


class Kind(NamedTuple):
    """A kind of autoencoder: published squared norm in units of 1e-4 and test error in percent, and its settings.

    Attributes:
        norm, error: as published.
        coefficient, tried: the setting that is chosen on validation digits, and among which values.
        fixed: its other settings.
    """

    norm: float
    error: float
    coefficient: str
    tried: tuple[float, ...]
    fixed: dict[str, Any]


KINDS = {
    "contractive": Kind(0.73, 1.14, "contractive", (0.1, 0.3), {}),
    "Gaussian noise": Kind(0.86, 1.18, "noise", (0.3, 0.5, 0.7), {"corruption": "gaussian"}),
    "masking noise": Kind(7.87, 1.57, "noise", (0.25, 0.5), {"corruption": "masking"}),
    "weight decay": Kind(5.00, 1.68, "weight_decay", (1e-4, 3e-4, 1e-3), {}),
    "plain": Kind(17.5, 1.78, "weight_decay", (0.0,), {}),
}


def _init(key: Key, d_in: int, s: Any) -> Params:
    """Weights ~ U(+-4 sqrt(6 / (d_in + n))), biases 0."""
    scale = 4 * ((d_in + s.d_hidden + 1) / (d_in + s.d_hidden)) ** 0.5
    return {name: scale * value for name, value in uniform_weights(key, d_in, s.d_hidden, s.tied).items()}


WIDE = CLASSIC._replace(init=_init)


def run(options: Options) -> Report:
    """Train the five kinds; measure the norm, the singular values and the error after fine-tuning."""
    data = load(dataclasses.replace(options.mnist, samples=500 if options.quick else 0))
    names = ("contractive", "plain") if options.quick else tuple(KINDS)
    shared: dict[str, Any] = {
        "d_hidden": 40 if options.quick else 1000,
        "tied": True,
        "reconstruction_loss": "bernoulli",
        "optimizer": "sgd",
        "momentum": 0.0,
        "learning_rate": 0.1,
        "warmup": 0.0,
        "final_learning_rate": 1.0,
        "batch_size": 20,
        "steps": 300 if options.quick else 20_000,
        "beta": 0.0,
        "weight_decay": 0.0,
    }
    seeds = [] if options.quick else [1, 2]
    epochs = 2 if options.quick else 20
    norms, errors, spectra, chosen = {}, {}, {}, {}
    for name in names:
        lanes, settings, chosen[name] = _trained(KINDS[name], data, shared, seeds, epochs)
        curved = [jacobian(lane, data.heldout, settings) for lane in lanes]
        norms[name], spectra[name] = [norm for norm, _ in curved], curved[0][1]
        errors[name] = [fine_tuned(lane, data, settings, epochs, False) for lane in lanes]
    figure, panels = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    panels[0].barh(list(norms), [float(np.mean(each)) for each in norms.values()], height=0.6)
    panels[0].set(title="Jacobian of the encoder on test digits", xlabel="mean squared entry", xscale="log")
    panels[1].barh(list(errors), [float(np.mean(each)) for each in errors.values()], height=0.6)
    panels[1].set(title="fine-tuned from the codes", xlabel="test error, %")
    for name, values in spectra.items():
        panels[2].semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-4), label=name)
    panels[2].set(title="its singular values, mean over digits", xlabel="rank", xlim=(0, min(300, len(values))))
    panels[2].legend(frameon=False)
    if options.quick:
        ratio = float(np.mean(norms["contractive"]) / np.mean(norms["plain"]))
        return Report(
            [expectation("squared norm, contractive over plain", "less", ratio, high=0.95, why="a quick run's")], figure
        )
    return Report(_checks(norms, errors, chosen), figure)


def _trained(
    kind: Kind, data: Data, shared: dict[str, Any], seeds: list[int], epochs: int
) -> tuple[list[xr.Dataset], LaneSettings, float]:
    """Lanes of seed 0 and of `seeds`, their settings, and the coefficient that was chosen for them with seed 0."""
    settings = shared | kind.fixed
    tried = sweep(data, WIDE, seeds=1, **settings | {kind.coefficient: kind.tried}).isel(seed=0)
    lanes = [tried.sel({kind.coefficient: value}) for value in kind.tried]
    each = [lane_settings(WIDE, **settings | {kind.coefficient: value}) for value in kind.tried]
    place = 0
    if len(lanes) > 1:
        errors = [fine_tuned(lane, data, its, epochs, True) for lane, its in zip(lanes, each, strict=True)]
        place = int(np.argmin(errors))
    more = [sweep(data, WIDE, seeds=seeds, **settings | {kind.coefficient: kind.tried[place]})] if seeds else []
    others = [trained.isel(seed=i) for trained in more for i in range(len(seeds))]
    return [lanes[place], *others], each[place], kind.tried[place]


def _checks(norms: dict[str, list[float]], errors: dict[str, list[float]], chosen: dict[str, float]) -> list[Check]:
    checks = []
    for kind in norms:
        published = KINDS[kind].norm / KINDS["plain"].norm
        if kind != "plain":
            ratios = np.asarray(norms[kind]) / np.asarray(norms["plain"])
            what, low, high = f"squared norm, {kind} over plain", published / 3, min(1.0, 3 * published)
            checks.append(number(what, f"{published:.3g}", TABLE, ratios, low, high, why="a factor of 3"))
    for kind, values in norms.items():
        what, words = f"squared norm, {kind}, 1e-4", f"{KINDS[kind].norm:g}"
        checks.append(number(what, words, TABLE, 1e4 * np.asarray(values), why="ratios are asked for"))
    for kind, values in errors.items():
        low, high = KINDS[kind].error - 0.4, KINDS[kind].error + 0.4
        why = "three standard errors on 10,000 digits"
        checks.append(number(f"error, {kind}, %", f"{KINDS[kind].error:g}", TABLE, values, low, high, why=why))
    above = np.asarray(errors["plain"]) - np.asarray(errors["contractive"])
    what = "error, plain less contractive, %, the least of all seeds"
    checks.append(order(what, "0.64", TABLE, float(np.min(above)), low=0.0, why="the order"))
    what = "coefficient of least validation error, "
    checks += [expectation(f"{what}{kind}", "one of those tried", chosen[kind], why="a choice") for kind in chosen]
    return checks


def fine_tuned(lane: xr.Dataset, data: Data, settings: LaneSettings, epochs: int, on_validation: bool) -> float:
    """Error in percent of the encoder under a softmax layer, both trained on the labels.

    Args:
        lane: whose encoder it is.
        data: digits and labels.
        settings: of the lane.
        epochs: of the training.
        on_validation: whether the error is that on validation digits, which then take no part in the training.
    """
    (labels, test_labels), x, others = labels_of(data), data.train, data.heldout
    classes = int(labels.max()) + 1
    if on_validation:
        split = split_off(data)
        labels, test_labels, x, others = labels[split.fitted], labels[split.validation], *(x[part] for part in split)
    encoder = {name: jnp.asarray(lane[name].values) for name in ("encoder_weight", "encoder_bias")}
    head = {"weight": jnp.zeros((settings.model.d_hidden, classes)), "bias": jnp.zeros(classes)}

    def loss(network: tuple[Params, Params], x: Array, y: Array) -> Array:
        return probe_loss(network[1], encode(network[0], x, settings), y, 0.0)

    samples = (jnp.asarray(x), jnp.asarray(labels))
    tuned, top = minimize(loss, (encoder, head), samples, epochs * len(x) // BATCH, BATCH, RATE)
    logits = jax.jit(lambda x: probe_logits(top, encode(tuned, x, settings)))(others)
    return 100 * (1 - float(accuracy(logits, test_labels)))


def jacobian(lane: xr.Dataset, x: np.ndarray, settings: LaneSettings) -> tuple[float, np.ndarray]:
    """Mean squared entry of dh/dx over samples, and the mean of its sorted singular values over the first few.

    dh_j/dx_i = sigma'(z_j) W_ji, whose singular values are the roots of the eigenvalues of W^T diag(sigma'^2) W.
    """
    weight = np.asarray(lane["encoder_weight"].values, float)
    params = {name: jnp.asarray(lane[name].values) for name in ("encoder_weight", "encoder_bias")}
    codes = encode(params, x, settings)
    slopes = np.asarray(ACTIVATIONS[settings.model.activation].slope(codes)).astype(float)
    norm = np.mean(np.sum(slopes**2 * np.sum(weight**2, axis=1), axis=1)) / weight.size
    spectra = [
        np.sqrt(np.maximum(np.linalg.eigvalsh((weight.T * slope**2) @ weight)[::-1], 0))
        for slope in slopes[:SAMPLES_OF_SPECTRUM]
    ]
    return float(norm), np.mean(spectra, axis=0)

"""Thirty codes of a digit: principal components, one logistic layer, and a deep autoencoder.

Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", figure 2B: squared error on
MNIST's test digits from 30 codes, 13.87 by PCA, 8.01 by logistic PCA and 3.00 by a deep autoencoder of
784-1000-500-250-30 units and back.

    python -m experiments.reproduce hinton-salakhutdinov --data-dir DIR

The linear autoencoder and the logistic one (linear codes, a logistic output, cross-entropy) are trained by Adam for 20
epochs. The deep one's layers are trained one after another as autoencoders, not as Boltzmann machines, with logistic
codes but for the last layer's linear ones; then all layers are fine-tuned together on the cross-entropy of the
reconstruction, by Adam on minibatches instead of conjugate gradients.

About 12 minutes of a processor's time. Expect 13.87, 13.87 and 8.00. After 1,000 steps of each layer and 6,000 of all,
a fifth of the whole, the deep one's error is 4.5.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA

from experiments.reproduce.checks import SECONDARY, Source, expectation, number
from experiments.reproduce.minibatches import minimize
from experiments.reproduce.report import Options, Report
from sae_jax import Data, LaneSettings, decode, encode, fit, lane_settings, load
from sae_jax.models.terms import reconstruction_loss
from sae_jax.training.lane import final_params

SOURCE = "Hinton and Salakhutdinov 2006"
CAPTION = Source("Hinton and Salakhutdinov 2006, figure 2B, caption", SECONDARY)
SIDE, CODES, SHOWN = 28, 30, 10
WIDTHS = (1000, 500, 250, CODES)
Layers = list[dict[str, Array]]


def run(options: Options) -> Report:
    """Train the three autoencoders and compare their errors on the test digits."""
    data = load(dataclasses.replace(options.mnist, samples=500 if options.quick else 0))
    codes, steps = (8, 1000) if options.quick else (CODES, 12_000)
    sizes = ((40, codes), 50, 50, 100) if options.quick else (WIDTHS, 100, 3000, 30_000)
    principal = PCA(codes, svd_solver="full").fit(data.train)
    rebuilt = {
        "PCA": principal.inverse_transform(principal.transform(data.heldout)),
        "linear": _shallow(data, codes, steps, output="linear"),
        "logistic": _shallow(data, codes, steps, output="sigmoid", reconstruction_loss="bernoulli"),
        "deep": _deep(data, *sizes),
    }
    errors = {name: float(np.mean(np.sum((data.heldout - x) ** 2, axis=1))) for name, x in rebuilt.items()}
    figure, panels = plt.subplots(len(rebuilt) + 1, 1, figsize=(8, 4.6), layout="constrained")
    for panel, (name, x) in zip(panels, {"digits": data.heldout, **rebuilt}.items(), strict=True):
        panel.imshow(np.hstack([*np.asarray(x)[:SHOWN].reshape(-1, SIDE, SIDE)]), cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: {errors[name]:.2f}" if name in errors else name, fontsize=9)
        panel.axis("off")
    if options.quick:
        ratio = errors["linear"] / errors["PCA"]
        return Report(
            [expectation("squared error, linear over PCA", "1", ratio, 0.9, 1.1, why="a quick run's")], figure
        )
    what = "squared error of a test digit, "
    layer = "the paper does not say how it was trained"
    checks = [
        number(f"{what}PCA", "13.87", CAPTION, errors["PCA"], 13.86, 13.88, why="no training: the caption's digits"),
        number(f"{what}linear", "13.87", CAPTION, errors["linear"], 13.80, 13.94, why="half a percent from PCA"),
        number(f"{what}one logistic layer", "8.01", CAPTION, errors["logistic"], 7.21, 8.81, why=f"a tenth: {layer}"),
        number(f"{what}deep", "3.00", CAPTION, errors["deep"], why="layers start otherwise, and train for less long"),
    ]
    return Report(checks, figure)


def _shallow(data: Data, codes: int, steps: int, **output: Any) -> np.ndarray:
    """Reconstructions of the test digits from linear codes."""
    settings = lane_settings(
        d_hidden=codes,
        activation="linear",
        learning_rate=3e-3,
        batch_size=100,
        steps=steps,
        beta=0.0,
        weight_decay=0.0,
        **output,
    )

    @jax.jit
    def trained(train: Array, heldout: Array) -> Array:
        params = final_params(fit(settings, train, heldout[:1], jax.random.key(0))[0], settings)
        return decode(params, encode(params, heldout, settings), settings)

    return np.asarray(trained(jnp.asarray(data.train), jnp.asarray(data.heldout)))


def _deep(data: Data, widths: tuple[int, ...], batch: int, greedy: int, steps: int) -> np.ndarray:
    """Reconstructions of the test digits by layers trained one after another, then together.

    Args:
        data: digits.
        widths: units of the layers, that of the codes last.
        batch: digits a minibatch.
        greedy: steps of each layer.
        steps: of all together.
    """
    train, key = jnp.asarray(data.train), jax.random.key(0)
    layers: list[LaneSettings] = [
        lane_settings(
            d_hidden=width,
            activation="linear" if width == widths[-1] else "sigmoid",
            reconstruction_loss="bernoulli",
            learning_rate=1e-3,
            batch_size=batch,
            steps=greedy,
            beta=0.0,
            weight_decay=0.0,
        )
        for width in widths
    ]
    params: Layers = []
    below = train
    for place, layer in enumerate(layers):
        params.append(_pretrained(layer, below, jax.random.fold_in(key, place)))
        below = encode(params[-1], below, layer)

    def loss(params: Layers, x: Array) -> Array:
        return reconstruction_loss(_logits(params, layers, x), x, "bernoulli", "sigmoid")

    tuned = minimize(loss, params, (train,), steps, batch, 1e-3)
    return np.asarray(jax.nn.sigmoid(_logits(tuned, layers, jnp.asarray(data.heldout))))


def _pretrained(settings: LaneSettings, x: Array, key: Array) -> dict[str, Array]:
    return jax.jit(lambda x: final_params(fit(settings, x, x[:1], key)[0], settings))(x)


def _logits(params: Layers, layers: list[LaneSettings], x: Array) -> Array:
    """The reconstruction before its logistic function, through all encoders up and all decoders down."""
    for layer, settings in zip(params, layers, strict=True):
        x = encode(layer, x, settings)
    for layer, settings in zip(params[:0:-1], layers[:0:-1], strict=True):
        x = decode(layer, x, settings)
    return x @ params[0]["decoder_weight"] + params[0]["decoder_bias"][None]

"""Contractive autoencoders have the flattest codes: the average norm of the encoder's Jacobian, over five kinds.

Rifai et al. 2011, "Contractive auto-encoders", the table of test errors and average Jacobian norms on MNIST, and the
figure of the Jacobian's singular values. Tied weights, sigmoid codes and outputs, cross-entropy and 1000 units, as
there. The published norms are on a scale that could not be made out, so what is compared is their order. The paper's
errors are those of a fine-tuned network; here a softmax layer reads the codes. The order depends on the coefficients,
as a norm falls with each of them: with half of the inputs masked instead of a quarter, the norm comes below that of
Gaussian noise.

    python -m experiments.reproduce contractive --data-dir DIR

About 12 minutes on 2 cores, 2 seeds. Expect the contractive norm at a third of the plain one and all ratios below 1,
though nearer to 1 than the published ones; and errors of 2.3% (contractive) and 4.1% (plain).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

from experiments.reproduce.checks import SECONDARY, Check, Source, number, order
from experiments.reproduce.report import Options, Report
from sae_jax import LaneSettings, encode, lane_settings, load, sweep
from sae_jax.analysis.tasks import TaskConfig, apply
from sae_jax.models.activations import ACTIVATIONS

SOURCE = "Rifai et al. 2011"
TABLE = Source("Rifai et al. 2011, table of results", SECONDARY)
SAMPLES_OF_SPECTRUM = 40
# By name: the published norm in units of 1e-4, the published test error in percent, and the settings here.
KINDS: dict[str, tuple[float, float, dict[str, Any]]] = {
    "contractive": (0.73, 1.14, {"contractive": 1.0}),
    "Gaussian noise": (0.86, 1.18, {"corruption": "gaussian", "noise": 0.5}),
    "masking noise": (7.87, 1.57, {"corruption": "masking", "noise": 0.25}),
    "weight decay": (5.00, 1.68, {"weight_decay": 1e-3}),
    "plain": (17.5, 1.78, {}),
}


def run(options: Options) -> Report:
    """Train the five kinds; measure the norm, the singular values and the error of a softmax layer."""
    data = load(dataclasses.replace(options.mnist, samples=500 if options.quick else 0))
    kinds = ("contractive", "plain") if options.quick else tuple(KINDS)
    shared: dict[str, Any] = {
        "d_hidden": 40 if options.quick else 1000,
        "tied": True,
        "reconstruction_loss": "bernoulli",
        "batch_size": 50 if options.quick else 100,
        "steps": 300 if options.quick else 6000,
        "beta": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 1e-3,
    }
    seeds = 1 if options.quick else 2
    norms, errors, spectra = {}, {}, {}
    for kind in kinds:
        settings = shared | KINDS[kind][2]
        trained = sweep(data, seeds=seeds, **settings)
        lanes = [jacobian(trained.isel(seed=i), data.heldout, lane_settings(**settings)) for i in range(seeds)]
        norms[kind], spectra[kind] = float(np.mean([norm for norm, _ in lanes])), lanes[0][1]
        probed, _ = apply("probe", trained, TaskConfig(iterations=20 if options.quick else 200), data)
        errors[kind] = 100 * (1 - float(probed["probe_accuracy"].mean()))
    figure, panels = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    panels[0].barh(list(norms), list(norms.values()), height=0.6)
    panels[0].set(title="Jacobian of the encoder on test digits", xlabel="mean Frobenius norm")
    panels[1].barh(list(errors), list(errors.values()), height=0.6)
    panels[1].set(title="softmax on the codes", xlabel="test error, %")
    for kind, values in spectra.items():
        panels[2].semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-4), label=kind)
    panels[2].set(title="its singular values, mean over digits", xlabel="rank", xlim=(0, min(300, len(values))))
    panels[2].legend(frameon=False)

    def ratio(first: str, second: str, highest: float = 1.0) -> Check:
        published = KINDS[first][0] / KINDS[second][0]
        return order(
            f"norm, {first} over {second}",
            f"{published:.3g}",
            TABLE,
            norms[first] / norms[second],
            high=highest,
            why="the order alone: the scale of the published norms could not be made out",
        )

    checks = [ratio("contractive", "plain", 0.95 if options.quick else 1.0)]
    if not options.quick:
        checks += [
            ratio("contractive", "Gaussian noise"),
            ratio("Gaussian noise", "masking noise"),
            ratio("Gaussian noise", "weight decay"),
            ratio("masking noise", "plain"),
            ratio("weight decay", "plain"),
            order(
                "softmax error, contractive over plain",
                f"{KINDS['contractive'][1] / KINDS['plain'][1]:.3g}",
                TABLE,
                errors["contractive"] / errors["plain"],
                high=1,
                why="the order alone: the published errors are of fine-tuned networks",
            ),
            *(
                number(
                    f"softmax error, {kind}, %",
                    f"{KINDS[kind][1]:g}",
                    TABLE,
                    errors[kind],
                    why="the published errors are of fine-tuned networks, these of a softmax layer on the codes",
                )
                for kind in kinds
            ),
        ]
    return Report(checks, figure)


def jacobian(lane: xr.Dataset, x: np.ndarray, settings: LaneSettings) -> tuple[float, np.ndarray]:
    """Mean Frobenius norm of dh/dx over samples, and the mean of its sorted singular values over the first few.

    dh_j/dx_i = sigma'(z_j) W_ji, whose singular values are the roots of the eigenvalues of W^T diag(sigma'^2) W.
    """
    weight = np.asarray(lane["encoder_weight"].values, float)
    params = {name: jnp.asarray(lane[name].values) for name in ("encoder_weight", "encoder_bias")}
    codes = encode(params, x, settings)
    slopes = np.asarray(ACTIVATIONS[settings.model.activation].slope(codes)).astype(float)
    norm = np.mean(np.sqrt(np.sum(slopes**2 * np.sum(weight**2, axis=1), axis=1)))
    spectra = [
        np.sqrt(np.maximum(np.linalg.eigvalsh((weight.T * slope**2) @ weight)[::-1], 0))
        for slope in slopes[:SAMPLES_OF_SPECTRUM]
    ]
    return float(norm), np.mean(spectra, axis=0)

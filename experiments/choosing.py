"""How beta and rho trade on several data sets: what docs/choosing.md shows.

    python -m experiments.choosing

About 2 minutes on 2 cores. Default settings, 25 units, one seed; beta is given in units of the variance of a sample,
the sum over inputs of their variances. Prints a row for every data set and beta: how far the mean activation ends from
rho, and the explained variance.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from sae_jax import Data, DataConfig, as_data, load, sweep
from sae_jax.commands.errors import one_line_errors
from sae_jax.settings import SweepWarning, UserError

RHOS = (0.02, 0.1)
IN_VARIANCES = (0.1, 0.3, 1.0, 3.0, 10.0)
LINEAR: dict[str, Any] = {"output": "linear"}


def data_sets() -> dict[str, tuple[Data, dict[str, Any]]]:
    """Data sets by name, each with the settings that it needs."""
    pixels = 255 * load(DataConfig(whiten=False, normalize="none")).train
    standard = DataConfig(dataset="array", normalize="standardize")
    return {
        "patches": (load(DataConfig()), {}),
        "patches, unit variance": (load(DataConfig(normalize="unit")), LINEAR),
        "digits": (load(DataConfig(dataset="digits")), {}),
        "digits, standardized": (load(DataConfig(dataset="digits", normalize="standardize")), LINEAR),
        "pixels of patches, up to 255": (as_data(pixels), LINEAR),
        "the same, standardized": (as_data(pixels, standard), LINEAR),
    }


def table() -> list[str]:
    """Rows of the table, in Markdown."""
    head = ["data", "variance", "beta / variance", "beta"]
    lines = [" | ".join([*head, *(f"rho {rho:g}: rho_hat / rho, explained" for rho in RHOS)])]
    lines.append(" | ".join(["---"] * (len(head) + len(RHOS))))
    for name, (data, settings) in data_sets().items():
        variance = float(np.sum(data.train.var(axis=0, dtype=float)))
        betas = [variance * share for share in IN_VARIANCES]
        made = sweep(data, d_hidden=25, steps=5000, batch_size=64, rho=RHOS, beta=betas, **settings).squeeze("seed")
        ratio = (made["eval_mean_activation"].mean("unit") / made["rho"]).transpose("beta", "rho").values
        explained = made["eval_explained_variance"].transpose("beta", "rho").values
        for i, beta in enumerate(betas):
            cells = [f"{ratio[i, j]:.2f}, {explained[i, j]:.2f}" for j in range(len(RHOS))]
            lines.append(" | ".join([name, f"{variance:.3g}", f"{IN_VARIANCES[i]:g}", f"{beta:.3g}", *cells]))
    return [f"| {line} |" for line in lines]


def main(argv: list[str]) -> None:
    """Measure and print."""
    with one_line_errors():
        if argv:
            raise UserError(f"experiments.choosing takes no flags: got {argv[0]}; leave it out")
        warnings.simplefilter("ignore", SweepWarning)  # The table shows what they would say.
        print("\n".join(table()))


if __name__ == "__main__":
    main(sys.argv[1:])

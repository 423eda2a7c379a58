"""How far the KL penalty lets units stray from rho: the balance of the penalty's slope with the reconstruction's pull.

The penalty is a function of the mean activation q_j of a unit over the samples, so its slope at every code is the same,
beta (q_j - rho) / (m q_j (1 - q_j)). Where the encoder's bias of the unit stands still, that slope and the
reconstruction's, each times the activation's own, sum to 0:

    beta (q_j - rho) / (q_j (1 - q_j)) = g_j,   g_j = - sum_i r_ij s_ij / sum_i s_ij

with r_ij = m dR / dh_ij and s_ij = h_ij (1 - h_ij): g_j, the pull, is what a unit of mean activity would spare the
reconstruction. So (q_j - rho) / rho is g_j (1 - rho) / beta to first order, and more than that where it is no longer
small, since the penalty's slope bends: x / (1 - x) with x = g_j (1 - q_j) / beta.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.special import expit


class Balance(NamedTuple):
    """Units of lanes on the samples that they were trained on, each [..., unit].

    Attributes:
        rho, beta: of the lanes, broadcastable.
        activation: q, the mean activation.
        pull: g.
    """

    rho: np.ndarray
    beta: np.ndarray
    activation: np.ndarray
    pull: np.ndarray

    @property
    def miss(self) -> np.ndarray:
        """(q - rho) / rho, mean over units."""
        return np.mean(self.activation / self.rho - 1, axis=-1)

    @property
    def law(self) -> np.ndarray:
        """The miss that follows from the pull: of the q between 0 and 1 at which the slopes cancel."""
        ratio = self.pull / self.beta
        half = (1 - ratio) / 2
        # The root of ratio q^2 + (1 - ratio) q - rho in a form that is exact where the pull is 0.
        balanced = self.rho / (half + np.sqrt(half**2 + ratio * self.rho))
        return np.mean(balanced / self.rho - 1, axis=-1)

    @property
    def first_order(self) -> np.ndarray:
        """g (1 - rho) / beta, mean over units."""
        return np.mean(self.pull * (1 - self.rho) / self.beta, axis=-1)


def balance_of(lanes: xr.Dataset, samples: np.ndarray) -> Balance:
    """Mean activations and pulls of sigmoid lanes trained with UFLDL's halved error.

    Args:
        lanes: of a sweep over rho and beta, at one number of units.
        samples: that they were trained on, [samples, d_in].

    Returns:
        Arrays [beta, rho, seed, unit].
    """
    x, dims = samples.astype(float), ("beta", "rho", "seed")
    shape = [lanes.sizes[dim] for dim in dims]
    names = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
    parameters = [lanes[name].transpose(*dims, ...).values.astype(float) for name in names]
    units = parameters[1].shape[-1]
    activation, pull = np.empty((*shape, units)), np.empty((*shape, units))
    for lane in np.ndindex(*shape):
        encoder, encoder_bias, decoder, decoder_bias = (part[lane] for part in parameters)
        codes = expit(x @ encoder.T + encoder_bias)
        out = expit(codes @ decoder + decoder_bias)
        slopes, sigmoid_slopes = ((out - x) * out * (1 - out)) @ decoder.T, codes * (1 - codes)
        activation[lane] = codes.mean(axis=0)
        pull[lane] = -np.sum(slopes * sigmoid_slopes, axis=0) / np.sum(sigmoid_slopes, axis=0)
    rho, beta = lanes["rho"].values.astype(float), lanes["beta"].values.astype(float)
    return Balance(rho[None, :, None, None], beta[:, None, None, None], activation, pull)


def draw_law(panel: Axes, balance: Balance) -> None:
    """The miss against beta for every rho: measured, by the law, and to first order."""
    beta = balance.beta.ravel()
    for i, rho in enumerate(balance.rho.ravel()):
        lines = [part[:, i].mean(axis=-1) for part in (balance.miss, balance.law, balance.first_order)]
        panel.plot(beta, lines[0], "o", color=f"C{i}", ms=4, label=f"rho {rho:g}")
        panel.plot(beta, lines[1], "-", color=f"C{i}", lw=1)
        panel.plot(beta, lines[2], ":", color=f"C{i}", lw=1)
    panel.set(
        xscale="log",
        yscale="log",
        title="miss on training samples: measured (dots),\nby the law (lines), to first order (dotted)",
        xlabel="beta",
        ylabel="(rho_hat - rho) / rho",
    )

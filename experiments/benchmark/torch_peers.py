"""The same training in PyTorch: one model at a time, and all lanes in one batched, compiled module.

Both keep the running mean activation in a buffer and inject the penalty's gradient at the codes, draw a batch by
indices, decay weights inside the loss and let torch.optim.Adam take the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Array
from torch import Tensor, nn

from experiments.benchmark.contenders import Contender
from experiments.benchmark.shapes import Shape
from sae_jax import CLASSIC, keys_of, lane_settings
from sae_jax.models import classic
from sae_jax.models.kl import EPSILON


class InjectKL(torch.autograd.Function):
    """The KL penalty of a running mean, whose gradient goes to the codes."""

    @staticmethod
    def forward(codes: Tensor, mean_activation: Tensor, rho: Tensor, beta: float) -> Tensor:
        """beta * sum_j KL(rho || rho_hat_j) over the last axis; codes [..., m, n], mean_activation [..., n]."""
        q = mean_activation.clamp(EPSILON, 1 - EPSILON)
        return beta * (rho * (rho / q).log() + (1 - rho) * ((1 - rho) / (1 - q)).log()).sum(-1)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Keep what the slope is made of."""
        codes, mean_activation, rho, ctx.beta = inputs
        ctx.shape = codes.shape
        ctx.save_for_backward(mean_activation, rho)

    @staticmethod
    def backward(ctx, cotangent: Tensor) -> tuple[Tensor, None, None, None]:
        """(beta / m) (-rho / rho_hat + (1 - rho) / (1 - rho_hat)) for every code."""
        mean_activation, rho = ctx.saved_tensors
        q = mean_activation.clamp(EPSILON, 1 - EPSILON)
        slope = ctx.beta * (-rho / q + (1 - rho) / (1 - q)) / ctx.shape[-2]
        return (cotangent[..., None] * slope)[..., None, :].expand(ctx.shape), None, None, None


class Autoencoders(nn.Module):
    """A KL-sparse autoencoder, or several with a leading axis over lanes.

    Args:
        params: encoder_weight [(lanes,) n, d_in], encoder_bias, decoder_weight, decoder_bias.
        rho: a scalar, or [lanes, 1].
        settings: beta, weight_decay and ema_decay are read.
    """

    def __init__(self, params: dict[str, Tensor], rho: Tensor, settings: classic.Settings) -> None:
        super().__init__()
        self.encoder_weight = nn.Parameter(params["encoder_weight"].clone())
        self.encoder_bias = nn.Parameter(params["encoder_bias"].clone())
        self.decoder_weight = nn.Parameter(params["decoder_weight"].clone())
        self.decoder_bias = nn.Parameter(params["decoder_bias"].clone())
        self.beta, self.weight_decay, self.ema_decay = settings.beta, settings.weight_decay, settings.ema_decay
        self.register_buffer("rho", rho)
        self.register_buffer("mean_activation", torch.zeros_like(params["encoder_bias"]) + rho)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The summed loss of all lanes on a batch [m, d_in], and the new running mean."""
        codes = torch.sigmoid(x @ self.encoder_weight.mT + self.encoder_bias[..., None, :])
        out = codes @ self.decoder_weight + self.decoder_bias[..., None, :]
        error = (out - x).square().sum(-1).mean(-1)
        penalty = InjectKL.apply(codes, self.mean_activation, self.rho, self.beta)
        squares = self.encoder_weight.square().sum() + self.decoder_weight.square().sum()
        mean = self.ema_decay * self.mean_activation + (1 - self.ema_decay) * codes.detach().mean(-2)
        return error.sum() + penalty.sum() + 0.5 * self.weight_decay * squares, mean


def step_of(model: Autoencoders, train: Tensor, rate: float, compile_it: bool) -> Callable[[Tensor], None]:
    """One training step on the rows of given numbers; forward and backward are compiled where asked for."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    mean_activation: Tensor = model.get_buffer("mean_activation")
    loss_of: Callable[..., Any] = torch.compile(model) if compile_it else model

    def step(rows: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss, mean = loss_of(train[rows])
        loss.backward()
        optimizer.step()
        mean_activation.copy_(mean)

    return step


def tensors(params: dict[str, Array]) -> dict[str, Tensor]:
    """A parameter pytree as PyTorch's tensors."""
    return {name: torch.from_numpy(np.array(value)) for name, value in params.items()}


def peers(shape: Shape, train: np.ndarray) -> tuple[tuple[Contender, int], tuple[Contender, int]]:
    """The two peers of a shape as contenders, one model and all lanes, each with how many models it trains.

    Args:
        shape: the row.
        train: samples [count, d_in].
    """
    torch.compiler.reset()  # Past eight shapes it would go on uncompiled.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = lane_settings(**shape.settings)
    keys = [keys_of(jax.random.key(lane)).init for lane in range(shape.lanes)]
    starts = [tensors(CLASSIC.init(key, shape.d_in, settings.model)) for key in keys]
    stacked = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    rows = torch.from_numpy(train).to(device)
    alone = Autoencoders(starts[0], torch.tensor(0.05), settings.model).to(device)
    together = Autoencoders(stacked, torch.linspace(0.02, 0.2, shape.lanes)[:, None], settings.model).to(device)

    def contender(model: Autoencoders, compile_it: bool) -> Contender:
        step = step_of(model, rows, settings.training.learning_rate, compile_it)

        def advance(steps: int) -> None:
            for _ in range(steps):
                step(torch.randint(len(rows), (shape.batch,), device=device))
            if device.type == "cuda":
                torch.cuda.synchronize()

        return advance

    return (contender(alone, compile_it=False), 1), (contender(together, compile_it=True), shape.lanes)

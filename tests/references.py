"""Literal float64 NumPy versions of the mathematics: slow, without tricks, one loop where the formula has a sum."""

from __future__ import annotations

import math

import numpy as np

EPSILON = 1e-6


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def kl(rho, q):
    """KL(rho || q) of two Bernoulli means, continued along its tangent outside [EPSILON, 1 - EPSILON]."""
    inside = min(max(q, EPSILON), 1 - EPSILON)
    value = rho * math.log(rho / inside) + (1 - rho) * math.log((1 - rho) / (1 - inside))
    slope = -rho / inside + (1 - rho) / (1 - inside)
    return value + slope * (q - inside)


def kl_sum(rho, mean_activation):
    return sum(kl(rho, float(q)) for q in mean_activation)


def kl_gradient_at_codes(rho, beta, mean_activation, batch):
    """(beta / m) (-rho / q_j + (1 - rho) / (1 - q_j)) at every code, [batch, units]."""
    row = [beta / batch * (-rho / float(q) + (1 - rho) / (1 - float(q))) for q in mean_activation]
    return np.tile(row, (batch, 1))


class Reference:
    """A KL-sparse sigmoid autoencoder with squared error, running mean activation and Adam, in float64."""

    def __init__(self, params, *, rho, beta, weight_decay, ema_decay):
        self.params = {name: np.asarray(value, np.float64) for name, value in params.items()}
        self.rho, self.beta, self.weight_decay, self.ema_decay = rho, beta, weight_decay, ema_decay
        self.mean_activation = np.full(len(self.params["encoder_bias"]), rho)
        self.first = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.steps = 0

    def forward(self, x):
        codes = sigmoid(x @ self.params["encoder_weight"].T + self.params["encoder_bias"])
        return codes, sigmoid(codes @ self.params["decoder_weight"] + self.params["decoder_bias"])

    def loss(self, x, beta):
        _, output = self.forward(x)
        decay = sum((self.params[name] ** 2).sum() for name in ("encoder_weight", "decoder_weight")) / 2
        reconstruction = ((output - x) ** 2).sum() / len(x)
        penalty = beta * kl_sum(self.rho, self.mean_activation)
        return reconstruction + penalty + self.weight_decay * decay, reconstruction, penalty

    def gradients(self, x, beta):
        codes, output = self.forward(x)
        at_output = 2 * (output - x) / len(x) * output * (1 - output)
        at_codes = at_output @ self.params["decoder_weight"].T
        at_codes = at_codes + kl_gradient_at_codes(self.rho, beta, self.mean_activation, len(x))
        at_preactivations = at_codes * codes * (1 - codes)
        return {
            "encoder_weight": at_preactivations.T @ x + self.weight_decay * self.params["encoder_weight"],
            "encoder_bias": at_preactivations.sum(axis=0),
            "decoder_weight": codes.T @ at_output + self.weight_decay * self.params["decoder_weight"],
            "decoder_bias": at_output.sum(axis=0),
        }

    def step(self, x, learning_rate, beta):
        """One Adam step (Kingma and Ba 2015, algorithm 1), then the running mean takes the batch in."""
        x = np.asarray(x, np.float64)
        loss, gradients = self.loss(x, beta), self.gradients(x, beta)
        codes, _ = self.forward(x)
        self.steps += 1
        for name, gradient in gradients.items():
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            first = self.first[name] / (1 - 0.9**self.steps)
            second = self.second[name] / (1 - 0.999**self.steps)
            self.params[name] = self.params[name] - learning_rate * first / (np.sqrt(second) + 1e-8)
        self.mean_activation = self.ema_decay * self.mean_activation + (1 - self.ema_decay) * codes.mean(axis=0)
        return loss


def learning_rate(step, *, peak, warmup_steps, steps, final):
    """Linear warm-up, then half a cosine down to a fraction of the peak."""
    warm = min(1.0, (step + 1) / warmup_steps)
    done = max(0.0, step - warmup_steps) / (steps - warmup_steps)
    return peak * warm * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


def explained_variance(x, reconstruction):
    x, reconstruction = np.asarray(x, np.float64), np.asarray(reconstruction, np.float64)
    mean = x.mean(axis=0)
    residual = sum(((a - b) ** 2).sum() for a, b in zip(x, reconstruction, strict=True))
    total = sum(((a - mean) ** 2).sum() for a in x)
    return 1 - residual / total

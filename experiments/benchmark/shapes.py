"""What is measured: shapes of autoencoders, batches and lanes, the arithmetic of a training step, the samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sae_jax import Data, DataConfig, LaneSettings, as_data
from sae_jax.sweeps.grid import make_grid

SAMPLES = 10_000
MOST_SEEDS = 4


class Shape(NamedTuple):
    """One row of the benchmark: inputs, hidden units, samples in a batch, lanes."""

    d_in: int
    d_hidden: int
    batch: int
    lanes: int

    @property
    def flop(self) -> int:
        """Floating-point operations of the five matrix products of one lane's step, 2 each for m d n.

        Two products forward (encode, decode) and three backward (both weights' gradients, and the codes').
        """
        return 5 * 2 * self.batch * self.d_in * self.d_hidden

    @property
    def settings(self) -> dict[str, Any]:
        """What all lanes share: a loss at this shape, an output without range, none of the warm-ups peers lack."""
        size = {"d_hidden": self.d_hidden, "batch_size": self.batch, "steps": 1_000_000}
        loss = {"beta": 1.0, "ema_decay": 0.9, "weight_decay": 1e-3, "learning_rate": 5e-3}
        return {**size, **loss, "output": "linear", "warmup": 0.0, "beta_warmup": 0.0}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of every cell: as many as a study would have."""
        return tuple(range(min(MOST_SEEDS, self.lanes)))

    def cells(self) -> LaneSettings:
        """Settings of every cell, each leaf [cells]."""
        rho = np.linspace(0.02, 0.2, self.lanes // len(self.seeds)).tolist()
        grid = make_grid("classic", DataConfig(), self.seeds, {**self.settings, "rho": rho})
        return next(cells for _, cells, _ in grid.programs())

    def __str__(self) -> str:
        return f"{self.d_in}-{self.d_hidden} x {self.batch} x {self.lanes}"


CPU = (
    *(Shape(64, 25, 256, lanes) for lanes in (1, 16, 256, 1024)),
    *(Shape(64, 256, 1024, lanes) for lanes in (8, 64)),
    *(Shape(784, 256, 256, lanes) for lanes in (1, 8, 64)),
    Shape(784, 1000, 100, 8),
    Shape(768, 6144, 2048, 1),
)
ACCELERATOR = (
    *(Shape(64, 25, 256, lanes) for lanes in (1, 64, 1024, 8192)),
    *(Shape(784, 256, 256, lanes) for lanes in (1, 64, 1024, 8192)),
    Shape(768, 16384, 4096, 1),
)
QUICK = (Shape(16, 8, 32, 1), Shape(16, 8, 32, 8))
SQUARE = Shape(2048, 2048, 2048, 1)


def samples(d_in: int) -> Data:
    """Random samples in [0, 1], as many as the default data has."""
    return as_data(np.random.default_rng(0).uniform(size=(SAMPLES + SAMPLES // 9, d_in)).astype(np.float32))

"""What is measured: shapes of autoencoders, batches and lanes, the arithmetic of a training step, the samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sae_jax import Data, DataConfig, LaneSettings, as_data
from sae_jax.models import MODELS
from sae_jax.models.presets import PRESETS, preset
from sae_jax.settings import settings_of
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


class Dictionary(NamedTuple):
    """One row of dictionaries: a preset, shape and lanes, and the active units of a sample where k is a setting.

    The lanes are those of as many learning rates as there are cells.
    """

    preset: str
    shape: Shape
    active: int

    def cells(self) -> LaneSettings:
        """Settings of every cell, each leaf [cells]."""
        model, settings = preset(self.preset)
        size: dict[str, Any] = {"d_hidden": self.shape.d_hidden, "batch_size": self.shape.batch, "steps": 1_000_000}
        if "k" in settings_of(MODELS[model].Settings):
            size["k"] = self.active
        if model == "matryoshka":
            size["prefixes"] = PREFIXES
        rates = np.geomspace(1e-4, 1e-3, self.shape.lanes // len(self.shape.seeds)).tolist()
        grid = make_grid(model, DataConfig(), self.shape.seeds, {**settings, **size, "learning_rate": rates})
        return next(cells for _, cells, _ in grid.programs())

    def __str__(self) -> str:
        return f"{self.preset} {self.shape}, {self.active} active"


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
PREFIXES = "1/16,1/4"
# Every architecture of SAELens, and at a size at which most of a step would multiply by zeros, those that choose codes.
DICTIONARIES = (
    *(Dictionary(name, Shape(64, 256, 1024, 8), 8) for name in PRESETS if name.startswith("saelens-")),
    *(
        Dictionary(name, Shape(768, 6144, 2048, 1), 32)
        for name in ("saelens-topk", "saelens-batchtopk", "saelens-matryoshka")
    ),
)
QUICK_DICTIONARIES = (Dictionary("saelens-topk", Shape(16, 80, 32, 1), 2), Dictionary("saelens-gated", QUICK[1], 2))
SQUARE = Shape(2048, 2048, 2048, 1)


def samples(d_in: int) -> Data:
    """Random samples in [0, 1], as many as the default data has."""
    return as_data(np.random.default_rng(0).uniform(size=(SAMPLES + SAMPLES // 9, d_in)).astype(np.float32))

"""SAELens' own trainer on the same arrays, one model at a time, as the library trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer

from experiments.benchmark.contenders import Contender
from experiments.benchmark.shapes import PREFIXES, Dictionary
from sae_jax.models.prefixes import widths

# The library's names of its architectures, where they are not those of the presets.
NAMES = {"matryoshka": "matryoshka_batchtopk", "matching-pursuit": "matching_pursuit"}


def trainer(row: Dictionary, train: np.ndarray) -> Contender:
    """The library's trainer as a contender.

    Args:
        row: whose preset is trained, one lane of it.
        train: samples [count, d_in].
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.from_numpy(train).to(device)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield rows[torch.randint(len(rows), (row.shape.batch,), device=device)]

    config = SAETrainerConfig(
        total_training_samples=10**12,
        train_batch_size_samples=row.shape.batch,
        lr=3e-4,
        lr_end=3e-4,
        adam_beta1=0.9,
        adam_beta2=0.999,
        device=device,
    )
    training = SAETrainer(config, model(row).to(device), batches())

    def advance(steps: int) -> None:
        for _ in range(steps):
            training.maybe_reset_sparsity()
            training.step(next(training.data_provider))
            training.n_training_steps += 1
        if device == "cuda":
            torch.cuda.synchronize()

    return advance


def model(row: Dictionary) -> Any:
    """The library's model of a row, as it starts."""
    name = row.preset.removeprefix("saelens-")
    kind, config = get_sae_training_class(NAMES.get(name, name))
    options: dict[str, Any] = {"d_in": row.shape.d_in, "d_sae": row.shape.d_hidden}
    if "topk" in name or name == "matryoshka":
        options["k"] = row.active
    if name == "matryoshka":
        options["matryoshka_widths"] = list(widths(PREFIXES, row.shape.d_hidden))
    if name == "matching-pursuit":
        options["max_iterations"] = row.active
    with warnings.catch_warnings():
        # Of matching pursuit it sets the rows' norm itself, and says so.
        warnings.simplefilter("ignore")
        return kind(config(**options))

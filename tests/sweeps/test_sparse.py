"""Sweeps whose lanes multiply by active codes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import sae_jax

SETTINGS: dict[str, Any] = {"d_hidden": 200, "batch_size": 64, "steps": 60, "learning_rate": 0.003, "progress": False}
MODELS: list[dict[str, Any]] = [
    {"model": "topk", "k": [2.0, 5.0]},
    {"model": "matryoshka", "k": [2.0, 5.0], "dead_units": "auxk", "dead_after": 200},
    {"model": ["abs_topk", "batch_topk"], "k": 3.0, "k_warmup": 0.5},
]


def swept(samples: np.ndarray, **settings: Any) -> tuple[xr.Dataset, list[str]]:
    """A sweep, and the lines of its plan."""
    lines = Lines()
    results = sae_jax.sweep(samples, observers=[lines], **{"seeds": 2, **SETTINGS, **settings})
    return results, [line for line in lines.lines if "chunk" in line]


class Lines(sae_jax.Observer):
    """Keeps the lines that it receives."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def assert_near(one: xr.Dataset, other: xr.Dataset, tolerance: float) -> None:
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        a, b = one[name].values, other[name].values
        largest = np.nanmax(np.abs(a)) if a.dtype.kind == "f" and a.size else 1
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=str(name))


@pytest.mark.parametrize("settings", MODELS, ids=["topk", "matryoshka", "several"])
def test_lists_train_what_products_do(samples: np.ndarray, settings: dict[str, Any]) -> None:
    lists, plan = swept(samples, devices=2, cells_per_block=1, **settings)
    assert all("by active codes alone" in line for line in plan) and plan
    # Batched over two cells, or over two seeds, every code is multiplied.
    products, plan = swept(samples, devices=1, blocks="in_parallel", **settings)
    assert not any("by active codes alone" in line for line in plan)
    assert_near(lists, products, 2e-4)


def test_a_lane_is_its_solo_run(samples: np.ndarray) -> None:
    one = {"devices": 1, "cells_per_block": 1, "model": "batch_topk"}
    grid, _ = swept(samples, k=[2.0, 5.0], **one)
    solo, _ = swept(samples, k=2.0, **(one | {"seeds": [1]}))
    lane = grid.sel(k=2.0, seed=1)
    for name in ("loss", "eval_explained_variance", "encoder_weight", "decoder_weight", "threshold"):
        np.testing.assert_allclose(lane[name], solo[name].squeeze(), rtol=0, atol=1e-5 * float(abs(lane[name]).max()))


def test_split_batches(samples: np.ndarray) -> None:
    whole, _ = swept(samples, devices=1, cells_per_block=1, model="batch_topk", k=3.0)
    split, plan = swept(samples, devices=2, data_parallel=2, cells_per_block=1, model="batch_topk", k=3.0)
    assert "by active codes alone" in plan[0]
    assert_near(whole, split, 2e-4)

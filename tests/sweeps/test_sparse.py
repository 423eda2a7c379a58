"""Sweeps whose lanes multiply by active codes alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

import sae_jax
from sae_jax.sweeps import split
from sae_jax.sweeps.plan import Engine, make_plan, repacked

SETTINGS: dict[str, Any] = {"d_hidden": 200, "batch_size": 64, "steps": 24, "learning_rate": 0.003, "progress": False}
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
        largest = np.max(np.abs(a[np.isfinite(a)]), initial=0.0) if a.dtype.kind == "f" and a.size else 1
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=str(name))


@pytest.mark.parametrize("settings", MODELS, ids=["topk", "matryoshka", "several"])
def test_lists_train_what_products_do(samples: np.ndarray, settings: dict[str, Any]) -> None:
    lists, plan = swept(samples, devices=2, cells_per_block=1, **settings)
    assert all("by active codes alone" in line for line in plan) and plan
    # Batched over two cells, or over two seeds, every code is multiplied.
    products, plan = swept(samples, devices=1, blocks="in_parallel", **settings)
    assert not any("by active codes alone" in line for line in plan)
    assert_near(lists, products, 2e-4)


ONE_DEVICE = {"devices": 1, "cells_per_block": 1, "model": "batch_topk"}


@pytest.fixture(scope="module")
def grid(samples: np.ndarray) -> xr.Dataset:
    """Lanes of lists on one device."""
    return swept(samples, k=[2.0, 5.0], **ONE_DEVICE)[0]


def test_a_lane_is_its_solo_run(samples: np.ndarray, grid: xr.Dataset) -> None:
    solo, _ = swept(samples, k=2.0, **(ONE_DEVICE | {"seeds": [1]}))
    lane = grid.sel(k=2.0, seed=1)
    for name in ("loss", "eval_explained_variance", "encoder_weight", "decoder_weight", "threshold"):
        np.testing.assert_allclose(lane[name], solo[name].squeeze(), rtol=0, atol=1e-5 * float(abs(lane[name]).max()))


def test_split_batches(samples: np.ndarray, grid: xr.Dataset) -> None:
    parts, plan = swept(samples, k=[2.0, 5.0], **(ONE_DEVICE | {"devices": 2, "data_parallel": 2}))
    assert "by active codes alone" in plan[0]
    assert_near(grid, parts, 2e-4)


def test_the_way_of_training_follows_from_the_packing() -> None:
    """What a run is resumed with, and what chunks are halved to, says it anew."""
    plan = make_plan(4, 1, jax.devices()[:1], 1000, 10**6, Engine(cells_per_block=1))._replace(lists=True)
    assert plan.sparse and not repacked(plan, 2, 1).sparse and repacked(repacked(plan, 2, 1), 1, 1).sparse
    assert not plan._replace(sequential=False).sparse and not plan._replace(lists=False).sparse


def test_an_extension_says_where_lists_would_differ(samples: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a run's folder records of it.
    packed = lambda *arguments: split.earlier_sweep(*arguments)._replace(cells_per_block=1)  # noqa: E731
    monkeypatch.setattr("sae_jax.sweeps.extend.earlier_sweep", packed)
    # However many lanes there are, a chunk is of two of them: its programs are the same.
    one = {"devices": 1, "cells_per_block": 1, "lanes_per_chunk": 2}
    earlier, _ = swept(samples, model="topk", k=[2.0, 5.0], **one)
    for k, bits in (([2.0, 4.6, 5.0], True), ([2.0, 4.0, 5.0], False), ([2.0, 5.0, 20.0], False)):
        lines = Lines()
        whole = sae_jax.extend(earlier, samples, k=k, observers=[lines], **one)
        assert any("to the bit" in line for line in lines.lines) == bits, lines.lines
        at_once, _ = swept(samples, model="topk", k=k, **one)
        if bits:
            assert all(whole[name].values.tobytes() == at_once[name].values.tobytes() for name in at_once.data_vars)
        assert_near(whole, at_once, 1e-5)

"""Training on a folder of shards: memory, the time that a device waits for rows, and how fast they are read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from sae_jax import DataConfig, load, sweep

# Of a shard; every one of them holds the same rows.
SHARD_BYTES = 2**28
# Blocks that are made before any is trained on: one for its shapes alone, and the first one.
BEFORE = 2


def from_shards(gigabytes: float, width: int, units: int, batch: int, steps: int) -> dict[str, Any]:
    """Write bfloat16 shards, read them one after another, then train a TopK dictionary on rows of them in random order.

    The training has a process of its own, whose memory is measured at its height. The device waits while the host
    reads a block of batches and nothing is being computed: what the reading of blocks takes in the training's own
    thread is the most that this can be.

    Args:
        gigabytes: of all shards.
        width, units, batch, steps: of the training; k is 32, or a quarter of the units.

    Returns:
        For JSON: bytes, rates of reading, memory and the share of the time.
    """
    folder = Path(tempfile.mkdtemp(prefix="shards-"))
    try:
        rows = max(1, min(SHARD_BYTES, int(gigabytes * 2**30)) // (2 * width))
        part = np.random.default_rng(0).standard_normal((rows, width), np.float32).astype(ml_dtypes.bfloat16)
        number = max(1, round(gigabytes * 2**30 / part.nbytes))
        for place in range(number):
            save_file({"activations": part}, folder / f"{place:05d}.safetensors")
        os.sync()
        rate = sequential_rate(folder)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            trained = pool.apply(train_on, (str(folder), width, units, batch, steps))
        return {
            "bytes": number * part.nbytes,
            "shape": [width, units, batch],
            "steps": steps,
            "sequential_bytes_per_second": rate,
            **trained,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sequential_rate(folder: Path) -> float:
    """Bytes a second of reading all files one after another, none of which the system has in memory."""
    read, buffer = 0, memoryview(bytearray(2**24))
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                read += count
    return read / (time.perf_counter() - start)


def peak_bytes() -> int:
    """Memory of this process at its height; what getrusage says begins with that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def train_on(folder: str, width: int, units: int, batch: int, steps: int) -> dict[str, Any]:
    """Train on shards in this process; its memory, and the time of blocks of batches.

    Args:
        folder: of the shards.
        width, units, batch, steps: as in `from_shards`.
    """
    data = load(DataConfig(dataset=f"activations:{folder}"))
    feed = data.feed
    seconds, since = list[float](), list[float]()

    def block(first: int, batch_size: int, stop: int) -> Any:
        start = time.perf_counter()
        values = feed.block(first, batch_size, stop)
        seconds.append(time.perf_counter() - start)
        since.append(time.perf_counter())
        return values

    object.__setattr__(data, "stream", feed._replace(block=block))
    k = min(32, units // 4)
    settings: dict[str, Any] = {"k": k, "d_hidden": units, "batch_size": batch, "steps": steps, "learning_rate": 1e-4}
    trained = sweep(data, "topk", progress=False, **settings)
    if not np.isfinite(trained["loss"].values[..., -1]).all():
        raise RuntimeError("a training of the benchmark has diverged")
    # From the first block of the training to the last: the last one's steps end after it.
    whole = since[-1] - since[BEFORE - 1]
    steps_of_block = int(feed.steps(batch) or steps)
    reading, rows = -time.perf_counter(), 0
    for place in range(4):
        rows += feed.block(place * steps_of_block, batch, 4 * steps_of_block).batches.shape[0] * batch
    reading += time.perf_counter()
    return {
        "peak_bytes": peak_bytes(),
        "waiting_share": sum(seconds[BEFORE:]) / whole,
        "step_seconds": whole / (steps_of_block * (len(seconds) - BEFORE)),
        "random_bytes_per_second": rows * width * 2 / reading,
    }

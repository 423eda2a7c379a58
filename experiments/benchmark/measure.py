"""Rows of the benchmark: contenders that take turns, and medians over the rounds."""

from __future__ import annotations

import importlib.util
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark.contenders import Contender, control, engine, lanes_of, products
from experiments.benchmark.shapes import Dictionary, Shape, samples
from sae_jax.sweeps.devices import cpu_cores

ROUNDS = 5
# A window of a default training has 50 steps; of very few, going in and out would be most of the time.
FEWEST_STEPS = 10
ENGINE, PRODUCTS = "engine", "products"
CONTROLS = ("vmap", "lax.map")
ALL_CODES, SAELENS = "all codes", "SAELens' trainer"
PEERS = ("PyTorch eager", "PyTorch batched, compiled")


def measure(shape: Shape, devices: list[jax.Device], seconds: float) -> dict[str, Any]:
    """One row.

    Args:
        shape: what is trained.
        devices: devices of the engine and of the products.
        seconds: how long each contender runs in a round.

    Returns:
        For JSON: model-steps per second of every contender, median over rounds that they ran in turn, and what follows
        from them; seconds to compile the engine's program and MiB that it needs.
    """
    data = samples(shape.d_in)
    lanes = lanes_of(shape, shape.cells(), data, devices)
    in_sweep, cost = engine(lanes)
    contenders: dict[str, tuple[Contender, int]] = {
        ENGINE: (in_sweep, lanes.number),
        PRODUCTS: (products(shape, devices), shape.lanes),
    }
    contenders |= {name: (control(shape, data, devices[0], name == "vmap"), shape.lanes) for name in CONTROLS}
    if importlib.util.find_spec("torch"):
        from experiments.benchmark.torch_peers import peers

        contenders |= dict(zip(PEERS, peers(shape, data.train), strict=True))
    rates = rates_in_turn(contenders, seconds)
    return {
        "shape": list(shape),
        "plan": str(lanes.plan),
        "model_steps_per_second": rates,
        "gflops": rates[ENGINE] * shape.flop / 1e9,
        "share_of_products": rates[ENGINE] / rates[PRODUCTS],
        "ratios": {name: rates[ENGINE] / rates[name] for name in (*PEERS, *CONTROLS) if name in rates},
        "compile_seconds": cost.seconds,
        "memory_mib": cost.memory / 2**20,
    }


def measure_dictionary(row: Dictionary, devices: list[jax.Device], seconds: float) -> dict[str, Any]:
    """One row of dictionaries; arguments and result as of `measure`.

    Where the engine multiplies active codes alone, the same lanes that multiply all of them run beside it.
    """
    data, shape = samples(row.shape.d_in), row.shape
    lanes = lanes_of(shape, row.cells(), data, devices)
    in_sweep, cost = engine(lanes)
    contenders: dict[str, tuple[Contender, int]] = {
        ENGINE: (in_sweep, lanes.number),
        PRODUCTS: (products(shape, devices), shape.lanes),
    }
    if lanes.plan.sparse:
        whole = lanes_of(shape, row.cells(), data, devices, by_lists=False)
        contenders[ALL_CODES] = (engine(whole)[0], whole.number)
    if importlib.util.find_spec("sae_lens"):
        from experiments.benchmark.saelens_peer import trainer

        contenders[SAELENS] = (trainer(row, data.train), 1)
    rates = rates_in_turn(contenders, seconds)
    return {
        "preset": row.preset,
        "shape": list(shape),
        "active": row.active,
        "plan": str(lanes.plan),
        "model_steps_per_second": rates,
        "ratios": {name: rates[ENGINE] / rate for name, rate in rates.items() if name != ENGINE},
        "compile_seconds": cost.seconds,
        "memory_mib": cost.memory / 2**20,
    }


def rates_in_turn(contenders: dict[str, tuple[Contender, int]], seconds: float) -> dict[str, float]:
    """Model-steps per second of contenders that take turns, the median over rounds.

    Args:
        contenders: by name, with how many models each trains.
        seconds: how long each runs in a round.
    """
    counts = {name: steps_in(advance, seconds) for name, (advance, _) in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, (advance, _) in contenders.items():
            times[name].append(timed(advance, counts[name]) / counts[name])
    return {name: models / float(np.median(times[name])) for name, (_, models) in contenders.items()}


def steps_in(advance: Contender, seconds: float) -> int:
    """How many steps a contender takes in about that long; the first ones, which compile, do not count."""
    advance(1)
    few = max(1, round(0.1 * seconds / timed(advance, 1)))
    return max(FEWEST_STEPS, round(few * seconds / timed(advance, few)))


def timed(advance: Contender, steps: int) -> float:
    """Seconds that a number of steps take."""
    start = time.perf_counter()
    advance(steps)
    return max(time.perf_counter() - start, 1e-6)


def product_rate(shape: Shape, devices: list[jax.Device], seconds: float) -> float:
    """GFLOP/s of the bare products at a shape, one lane for each device, the median over rounds."""
    shape = shape._replace(lanes=len(devices))
    advance = products(shape, devices)
    steps = steps_in(advance, seconds)
    return shape.flop * shape.lanes * steps / float(np.median([timed(advance, steps) for _ in range(ROUNDS)])) / 1e9


def machine(devices: list[jax.Device]) -> str:
    """The hardware and the versions, in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        processor = names[0] if names else processor
    kind = f"{len(devices)} x {devices[0].device_kind}, " if devices[0].platform != "cpu" else ""
    torch = ""
    if importlib.util.find_spec("torch"):
        import torch as peer

        torch = f", PyTorch {peer.__version__}"
    return f"{kind}{cpu_cores()} cores of {processor}, JAX {jax.__version__}{torch}"

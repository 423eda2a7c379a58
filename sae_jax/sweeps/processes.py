"""Many processes, on one machine or on many, that train one sweep together: one list of phases, run by all of them."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sae_jax.settings import UserError

# What a run goes through, in this order, on every process. Each exchange between processes names its phase.
Phase = Literal[
    "read the command", "load the data", "claim the folder", "open the checkpoints", "train", "write the results"
]

# How long processes may be started one after another.
MEETING_SECONDS = 300
# A process that is silent for so long is taken for dead; one that ends is noticed at once by those that wait for it.
HEARTBEAT_SECONDS = 20
# The first process may read data or write results for long while the others wait.
WAIT_SECONDS = 7 * 24 * 3600
# Set inside a pod; JAX asks Kubernetes by a package that is not there by itself, and warns in six lines where it lacks.
KUBERNETES = "KUBERNETES_SERVICE_HOST"
# What most messages fit in, their length included.
BLOCK_BYTES = 512

T = TypeVar("T")


class Refused(UserError):
    """Input that one of the processes refused, and of which all of them know."""


def start(
    coordinator: str = "", processes: int = 0, process_id: int = -1, met: Callable[[], None] = lambda: None
) -> None:
    """Join the other processes, before JAX computes anything; the number of CPU devices is fixed by it.

    Args:
        coordinator: HOST:PORT at which the first process can be reached; "" on SLURM, Kubernetes, Open MPI, TPU pods.
        processes: number of processes; 0 likewise.
        process_id: number of this one, from 0; -1 likewise.
        met: is called once all of them have found each other.

    Raises:
        UserError: no cluster was found, or what is given contradicts itself.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Otherwise a process would no longer end when it is told to.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "\\s*Kubernetes environment detected")
            jax.distributed.initialize(
                coordinator or None,
                processes or None,
                process_id if process_id >= 0 else None,
                # Where everything is said, nothing need be looked for.
                cluster_detection_method="deactivate" if coordinator and processes and process_id >= 0 else None,
                # Whoever watches the time ends the process before the runtime does.
                initialization_timeout=2 * MEETING_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=WAIT_SECONDS,
            )
    except Exception as error:  # Each kind of cluster is asked by a library of its own.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        fix = "start under SLURM, Kubernetes, Open MPI or on a TPU pod"
        if not coordinator and KUBERNETES in os.environ and importlib.util.find_spec("kubernetes") is None:
            fix = "install jax[k8s], which asks Kubernetes for them"
        raise UserError(
            f"the other processes must be known: {reason}; {fix}, or give --coordinator HOST:PORT, --processes and "
            "--process-id"
        ) from None
    met()
    _make_devices()


def _make_devices() -> None:
    """Have JAX make its devices, with collectives on the CPU that wait for WAIT_SECONDS instead of half an hour.

    XLA reads its flags once, when devices are made; afterwards they are put back, since a run records them.
    """
    flags = os.environ.get("XLA_FLAGS")
    # The last of two equal flags counts: the user's.
    os.environ["XLA_FLAGS"] = f"--xla_cpu_collective_timeout_seconds={WAIT_SECONDS} {flags or ''}"
    try:
        jax.process_index()
    finally:
        del os.environ["XLA_FLAGS"]
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags


def started() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def leads() -> bool:
    """Whether this process is the one that prints and writes; where there is only one, it is."""
    return not started() or jax.process_index() == 0


def gather(phase: Phase, action: Callable[[], Any]) -> list[Any]:
    """What an action returns on every process, in the order of their numbers; all must call it, in the same phase.

    Args:
        phase: where this process stands.
        action: returns a value of JSON, or refuses its input.

    Raises:
        Refused: a process has refused its input, in its words; or processes are in different phases.
        UserError: the only process has refused its input.
    """
    if not started():
        return [action()]
    value, refusal = None, ""
    try:
        value = action()
    except Refused:
        raise
    except UserError as error:
        refusal = str(error)
    messages = [json.loads(text) for text in _exchange(json.dumps([phase, refusal, value]))]
    first = messages[0][0]
    for number, (other, _, _) in enumerate(messages):
        if other != first:
            raise Refused(
                f"all processes must be in the same phase: process {number} is at '{other}', process 0 at '{first}'; "
                "start all with the same command and the same version"
            )
    for _, words, _ in messages:
        if words:
            raise Refused(words)
    return [returned for _, _, returned in messages]


def together(phase: Phase, action: Callable[[], T]) -> T:
    """Do something that may refuse its input on every process; where it does on one, it does on all.

    Returns:
        What the action does here, once it is done everywhere.

    Raises:
        UserError: as `gather`.
    """
    results: list[T] = []
    gather(phase, lambda: results.append(action()))
    return results[0]


def agree(phase: Phase, what: str, value: Any) -> None:
    """Refuse to continue where processes do not all have the same value of JSON.

    Raises:
        Refused: they do not; `what` says what differs.
    """
    values = gather(phase, lambda: json.dumps(value))
    for process, other in enumerate(values):
        if other != values[0]:
            raise Refused(
                f"all processes must have the same {what}: process {process} differs from process 0; start all alike"
            )


def _exchange(text: str) -> list[str]:
    """The texts of all processes.

    They travel by collectives between a CPU device of each process, so that no accelerator is waited for. A message
    that is longer than a block is sent again whole.
    """
    content = text.encode()
    size = np.array([len(content)], "<i4").tobytes()
    blocks = _gathered((size + content)[:BLOCK_BYTES], BLOCK_BYTES)
    sizes = [int(block[: len(size)].view("<i4")[0]) for block in blocks]
    if max(sizes) + len(size) > BLOCK_BYTES:
        # Powers of two, so that few programs do for all lengths.
        blocks = _gathered(size + content, 1 << (max(sizes) + len(size)).bit_length())
    return [
        block[len(size) : len(size) + number].tobytes().decode() for block, number in zip(blocks, sizes, strict=True)
    ]


def _gathered(content: bytes, length: int) -> np.ndarray:
    """The bytes of all processes, filled up to a length, uint8 [processes, length]."""
    copied, sharding = _gathering()
    block = np.frombuffer(content.ljust(length, b"\0"), np.uint8)[None]
    split = jax.make_array_from_process_local_data(sharding, block, (jax.process_count(), length))
    return np.asarray(copied(split).addressable_data(0))


@functools.lru_cache(maxsize=1)
def _gathering() -> tuple[jax.stages.Wrapped, NamedSharding]:
    """A function that copies an array to a CPU device of every process, and how the array lies before."""
    try:
        devices = jax.devices("cpu")
    except RuntimeError:  # JAX was told to use nothing but an accelerator.
        devices = jax.devices()
    each = [next(one for one in devices if one.process_index == i) for i in range(jax.process_count())]
    mesh = jax.make_mesh((len(each),), ("processes",), axis_types=(AxisType.Auto,), devices=each)
    copied = jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return copied, NamedSharding(mesh, PartitionSpec("processes"))

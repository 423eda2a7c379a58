"""Many processes, on one machine or on many, that train one sweep together."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax._src.distributed import global_state

from sae_jax.settings import UserError

# A process that is silent for so long is taken for dead; one that ends is noticed at once by those that wait for it.
HEARTBEAT_SECONDS = 20
# The first process may read data or write results for long while the others wait.
PATIENCE_SECONDS = 7 * 24 * 3600
OK, REFUSED = "ok ", "no "
# Exchanges are told apart by their number, which is the same on every process.
_turns = itertools.count()

T = TypeVar("T")


class Refused(UserError):
    """Input that one of the processes refused, and of which all of them know."""


def start(coordinator: str = "", processes: int = 0, process_id: int = -1) -> None:
    """Join the other processes, before JAX computes anything; what is not given is found from the cluster.

    Args:
        coordinator: HOST:PORT at which the first process can be reached; "" on SLURM, Kubernetes, Open MPI, TPU pods.
        processes: number of processes; 0 likewise.
        process_id: number of this one, from 0; -1 likewise.

    Raises:
        UserError: no cluster was found, or what is given contradicts itself.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Otherwise a process would no longer end when it is told to.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator or None,
            processes or None,
            process_id if process_id >= 0 else None,
            # Where everything is said, JAX need not warn that it cannot ask Kubernetes.
            cluster_detection_method="deactivate" if coordinator and processes and process_id >= 0 else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PATIENCE_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the other processes must be known: {reason}; start under SLURM, Kubernetes, Open MPI or on a TPU pod, "
            "or give --coordinator HOST:PORT, --processes and --process-id"
        ) from None


def started() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def leads() -> bool:
    """Whether this process is the one that prints and writes; where there is only one, it is."""
    # jax.process_index() would fix the number of CPU devices.
    return not started() or global_state.process_id == 0


def exchange(text: str) -> list[str]:
    """What every process says, in the order of their numbers; all must call it.

    Raises:
        Refused: a process says that it has refused its input instead.
    """
    return _told(OK + text) if started() else [text]


def told(text: str) -> str:
    """What the first process says, whatever the others do."""
    return exchange(text)[0]


def least(number: int) -> int:
    """The least of the numbers that the processes have."""
    return min(int(word) for word in exchange(str(number)))


def agree(what: str, text: str) -> None:
    """Refuse to go on where the processes do not all say the same.

    Raises:
        UserError: they do not.
    """
    said = exchange(text)
    for process, words in enumerate(said):
        if words != said[0]:
            raise UserError(
                f"all processes must have the same {what}: process {process} differs from process 0; start all alike"
            )


def together(action: Callable[[], T]) -> T:
    """Do something that may refuse its input on every process; where it does on one, it does on all.

    Returns:
        What the action does here.

    Raises:
        UserError: a process has refused, in its words.
    """
    try:
        done = action()
        exchange("")
    except Refused:
        raise
    except UserError as error:
        if started():
            _told(REFUSED + str(error))
        raise
    return done


def _told(text: str) -> list[str]:
    # Through the runtime's own store of keys: no device is needed, so that none is chosen too soon.
    client: Any = global_state.client
    turn = next(_turns)
    client.key_value_set(f"sae_jax/{turn}/{global_state.process_id}", text)
    keys = [f"sae_jax/{turn}/{process}" for process in range(global_state.num_processes)]
    words = [client.blocking_key_value_get(key, 1000 * PATIENCE_SECONDS) for key in keys]
    if turn:
        # Who has spoken now has read what was said before.
        client.key_value_delete(f"sae_jax/{turn - 1}/{global_state.process_id}")
    for word in words:
        if word.startswith(REFUSED):
            raise Refused(word.removeprefix(REFUSED))
    return [word.removeprefix(OK) for word in words]

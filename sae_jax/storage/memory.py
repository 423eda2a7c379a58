"""The memory that is left to this process."""

from __future__ import annotations

import resource

import psutil


def available_memory() -> int:
    """Bytes that this process may still take: those that the machine has free, or what ulimit -v leaves of them."""
    available = psutil.virtual_memory().available
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        available = min(available, max(limit - psutil.Process().memory_info().vms, 0))
    return int(available)

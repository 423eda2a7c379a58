"""The memory that is left to a process."""

import resource
from types import SimpleNamespace

import psutil
import pytest

from sae_jax.storage.memory import available_memory

CASES = {"none": (None, 2**30), "high": (2**40, 2**30), "low": (2**20, 2**20), "passed": (-(2**20), 0)}


@pytest.mark.parametrize(("beyond", "left"), CASES.values(), ids=CASES)
def test_a_limit_of_addresses_is_one_of_memory(beyond, left, monkeypatch):
    used = 2**33
    limit = resource.RLIM_INFINITY if beyond is None else used + beyond
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(vms=used))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    assert available_memory() == left

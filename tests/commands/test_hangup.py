"""A terminal that is closed while a run trains."""

import os
import signal
import time

import pytest

from sae_jax.commands.signals import interrupts_of


@pytest.fixture
def before():
    """What SIGHUP does, which a test may change."""
    handler = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, handler)


def test_a_closed_terminal_asks_a_run_to_end_in_order_however_often_it_says_so(before):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with interrupts_of("last words") as interrupts:
        assert callable(signal.getsignal(signal.SIGHUP))  # Or this process would end now.
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            while not interrupts.asked():
                time.sleep(0.001)
        assert interrupts.number == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored(before):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupts_of("last words") as interrupts:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and not interrupts.asked()

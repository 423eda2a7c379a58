"""Devices, and functions of a lane over all lanes."""

import jax
import numpy as np
import pytest

from sae_jax.parallel import choose_devices, map_lanes
from sae_jax.settings import UserError


def test_lanes_are_mapped_in_order_and_the_last_device_may_be_short():
    own = {"a": np.arange(5.0), "b": np.arange(10.0).reshape(5, 2)}
    found = map_lanes(lambda lane, x: (lane["a"] * x, lane["b"].sum()), jax.devices()[:3], (np.float32(2),), own)
    np.testing.assert_array_equal(found[0], 2 * own["a"])
    np.testing.assert_array_equal(found[1], own["b"].sum(axis=1))


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"got 99 of 4 cpu devices"):
        choose_devices(99)
    assert len(choose_devices(1)) == 1
    assert len(choose_devices(3)) == 3

"""Values that are wrong in most places, by name."""

import datetime

import jax
import numpy as np
import xarray as xr

TABLE = np.random.default_rng(0).uniform(size=(40, 3)).astype(np.float32)


class Tensor:
    """Of a library that refuses to lend it."""

    def __array__(self, *_, **__):
        raise RuntimeError("on another device")


def double(number):
    """A function that is no source of batches."""
    return 2 * number


# By name: the value, and a word that must stand in the message about it.
VALUES = {
    "nothing": (None, "[Nn]one"),
    "text": ("nonsense", "nonsense"),
    "empty text": ("", r"''|got \.;|directory: $"),
    "whole number": (7, "7"),
    "negative number": (-3, "-3"),
    "large number": (10**20, str(10**20)),
    "huge number": (10**5000, "thousands of digits"),
    "fraction": (2.5, r"2\.5"),
    "nan": (float("nan"), "nan"),
    "complex number": (1j, "1j"),
    "truth": (True, "True"),
    "date": (datetime.date(2000, 1, 2), "date"),
    "text with NUL": ("a\0b", r"a\\x00b"),
    "key": (jax.random.key(0), ""),
    "keys": (jax.random.split(jax.random.key(0), 3), ""),
    "key of another kind": (np.zeros(4, np.uint32), ""),
    "module": (np, "module"),
    "class": (dict, "class dict"),
    "function": (double, "double"),
    "dict": ({"a": 1}, "a"),
    "object": (object(), "object"),
    "generator": ((one for one in (1, 2)), "generator"),
    "bytes": (b"nonsense", "nonsense"),
    "empty list": ([], ""),
    "ragged list": ([[0.1], [0.2, 0.3]], ""),
    "list of texts": (["nonsense"], ""),
    "number in an array": (np.array(7), r"7|shape \[\]"),
    "one axis": (np.arange(5.0), ""),
    "shares": (np.full(5, 0.1), ""),
    "long doubles": (np.full(3, 0.1, np.longdouble), ""),
    "a shape alone": (jax.ShapeDtypeStruct((3,), np.float32), ""),
    "three axes": (np.zeros((2, 2, 2)), ""),
    "empty array": (np.zeros((0, 3)), ""),
    "another width": (np.zeros((6, 9)), ""),
    "objects": (np.array([[1, "a", None]], object), ""),
    "complex": (TABLE.astype(complex), ""),
    "dates": (TABLE.astype("datetime64[s]"), ""),
    "texts": (TABLE.astype(str), ""),
    "masked": (np.ma.array(TABLE, mask=TABLE > 0.5), ""),
    "tensor": (Tensor(), ""),
    "dataset": (xr.Dataset({"a": 1}), ""),
}
ANY_AXES = {"one axis", "three axes", "empty array", "another width", "key of another kind", "shares"}

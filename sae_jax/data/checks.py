"""Checks of arrays that may become samples."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sae_jax.settings import UserError, check_whole, received
from sae_jax.storage.arrays import pieces
from sae_jax.storage.memory import available_memory

MOST_CLASSES = 1_000_000
# Gradients grow as the square of the samples, and Adam squares them: larger ones leave single precision.
LARGEST_SAMPLE = 1e8
# What draws with keys, and the shapes of its keys of the old kind.
IMPLEMENTATION = "jax_default_prng_impl"
OLD_KEYS = {"threefry2x32": (2,), "rbg": (4,), "unsafe_rbg": (4,)}


def check_fits(samples: int | str, needed: int, name: str = "samples") -> None:
    """Refuse samples, or something else, that would not fit in memory while they are made.

    Args:
        samples: how many.
        needed: bytes that making them takes at its height.
        name: what they are.

    Raises:
        UserError: they would not.
    """
    available = available_memory()
    if needed > available:
        raise UserError(
            f"{name} must fit in memory: got {samples}, which take {needed / 2**20:,.0f} MiB "
            f"of {available / 2**20:,.0f} MiB; use fewer"
        )


def holds_array(values: Any) -> bool:
    """Whether something lends an array, or may be nested lists of numbers."""
    lends = hasattr(values, "__array__") or hasattr(values, "__dlpack__")
    return not isinstance(values, type) and (lends or isinstance(values, (list, tuple)))


def check_key(key: Any, name: str = "key") -> None:
    """Refuse what is no key of jax.random, of the new kind or the old one.

    Raises:
        UserError: it is none.
    """
    shape, dtype = (key.shape, key.dtype) if isinstance(key, (jax.Array, np.ndarray)) else ((), None)
    typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    words = OLD_KEYS.get(str(getattr(jax.config, IMPLEMENTATION)), shape)
    if not typed and not (dtype == np.uint32 and shape == words != ()):
        raise UserError(f"{name} must be a key of jax.random: got {received(key)}; use jax.random.key(0)")


def check_step(step: Any) -> None:
    """Refuse what is no number of a step, from 0; of a traced one only its kind is known.

    Raises:
        UserError: it is none.
    """
    whole = getattr(getattr(step, "dtype", None), "kind", "") in ("i", "u") and np.shape(step) == ()
    if isinstance(step, jax.core.Tracer) and not whole:
        raise UserError(f"step must be one whole number: got {received(step)} of dtype {step.dtype}; use an int32")
    if not isinstance(step, jax.core.Tracer):
        check_whole("step", step.item() if whole else step, 0)


def as_array(values: Any, name: str, layout: str = "") -> np.ndarray:
    """What holds an array as NumPy's: one of any library that lends it by __array__ or DLPack, or nested lists.

    Args:
        values: anything.
        name, layout: what it is, and its axes, in messages.

    Raises:
        UserError: it holds no array, its rows are of several lengths, or some of its values are masked.
    """
    rule = f"{name} must be an array{f' {layout}' if layout else ''}"
    if not holds_array(values):
        raise UserError(f"{rule}: got {received(values)}; pass numbers as a NumPy array")
    inside = values if isinstance(values, (list, tuple)) else ()
    # NumPy makes plain arrays of these without a word.
    masked = np.ma.asanyarray(values) if any(isinstance(one, np.ma.MaskedArray) for one in (values, *inside)) else None
    if masked is not None and np.ma.is_masked(masked):
        raise UserError(
            f"{name} must have no masked values: got {np.ma.count_masked(masked)} masked of {masked.size}; drop them, "
            "or fill them in: .filled(VALUE)"
        )
    try:
        by_dlpack = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
        return np.from_dlpack(values) if by_dlpack else np.asarray(values)
    except Exception as error:  # Libraries refuse in their own ways, such as tensors that are differentiated through.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{rule}: got {received(values)}: {reason}; pass numbers as a NumPy array") from None


def checked(values: Any, name: str, axes: tuple[str, ...], larger: str = "reshape it first") -> np.ndarray:
    """An array as NumPy's, or UserError where it is none, empty, of another rank, not numeric or not finite.

    Args:
        values: anything.
        name: what it is in messages.
        axes: what stands along its axes.
        larger: what to do about more axes.
    """
    layout = "[" + ", ".join(axes) + "]"
    values = as_array(values, name, layout)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{name} must hold real numbers: got dtype {values.dtype}; convert it to float32")
    if values.ndim != len(axes):
        fix = larger if values.ndim > len(axes) else "reshape it first"
        raise UserError(f"{name} must be an array {layout}: got shape {list(values.shape)}; {fix}")
    if values.size == 0:
        raise UserError(f"{name} must not be empty: got shape {list(values.shape)}; add some numbers")
    with np.errstate(over="ignore"):  # What single precision cannot hold becomes infinite, and is refused.
        bad = sum(int(np.sum(~np.isfinite(part.astype(np.float32)))) for _, part in pieces(values))
    if bad:
        raise UserError(
            f"{name} must be finite in single precision: got {bad} NaN, infinite or huge values "
            f"of {values.size}; drop those samples or rescale them"
        )
    return values


def class_numbers(labels: Any, name: str, samples: int) -> Int[np.ndarray, " samples"]:
    """Class numbers of so many samples, or UserError."""
    numbers = as_array(labels, name, "[samples]")
    if not samples and not numbers.size:
        return np.zeros(0, int)
    if numbers.ndim == 1 and len(numbers) != samples:
        raise UserError(
            f"{name} must be whole numbers from 0, one for each of {samples} samples: got {len(numbers)}; give each "
            "sample one"
        )
    numbers = checked(numbers, name, ("samples",))
    if np.any(numbers != np.round(numbers)) or not (0 <= numbers.min() <= numbers.max() <= MOST_CLASSES):
        raise UserError(
            f"{name} must be whole numbers in [0, {MOST_CLASSES}], one for each of {samples} samples: "
            f"got {len(numbers)} from {numbers.min():g} to {numbers.max():g}; number the classes from 0"
        )
    return numbers.astype(int, copy=False)


def trainable(values: Any, name: str, train: Any) -> Float[np.ndarray, "rows d_in"]:
    """Rows in single precision, or UserError: as many features as those to train on, finite, none too large."""
    rows = as_array(values, name, "[samples, features]")
    nothing_left_out = name == "left_out" and rows.ndim == 2 and not len(rows)
    if not nothing_left_out:
        # One pass over them, and the others only where something is wrong.
        low, high = (rows.min(), rows.max()) if rows.dtype.kind in "fiub" and rows.size else (np.nan, np.nan)
        if rows.ndim != 2 or not -LARGEST_SAMPLE <= low <= high <= LARGEST_SAMPLE:
            checked(rows, name, ("samples", "features"))
            raise UserError(
                f"samples must lie in [-{LARGEST_SAMPLE:g}, {LARGEST_SAMPLE:g}] once they are normalised: got a value "
                f"of size {max(-float(low), float(high)):.3g}; use normalize unit with output linear, or rescale them"
            )
    if train is not values and rows.shape[1] != train.shape[1]:
        raise UserError(
            f"{name} must have as many features as train, {train.shape[1]}: got {rows.shape[1]}; take both of one set"
        )
    return rows.astype(np.float32, copy=False)


def check_image_shape(shape: Any, d_in: int) -> None:
    """Refuse the sides of an image of another number of pixels than a sample has."""
    if shape is None:
        return
    sides = shape if isinstance(shape, (tuple, list)) else ()
    whole = all(isinstance(side, (int, np.integer)) and side >= 1 for side in sides)
    if len(sides) != 2 or not whole or sides[0] * sides[1] != d_in:
        raise UserError(
            f"image_shape must be (height, width) of a sample's {d_in} features: got {received(shape)}; leave it out "
            "where samples are no images"
        )

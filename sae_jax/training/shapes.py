"""Shapes of what users pass: refused in one line where they do not fit the parameters, which would else broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sae_jax.data.checks import as_array
from sae_jax.models.base import Batch
from sae_jax.settings import UserError, holds_reals, received
from sae_jax.training.config import LaneSettings, check_lane


def check_samples(samples: Any, params: Mapping[str, Any], settings: LaneSettings) -> Any:
    """Samples as an array, traced or NumPy's: [samples, d_in] of real numbers, d_in the parameters' own.

    Raises:
        UserError: they are not, or the parameters or the settings are none.
    """
    return _checked(samples, "samples", ("input",), params, settings)


def check_rows(rows: Any, params: Mapping[str, Any], settings: LaneSettings) -> Any:
    """Rows of samples as `split` takes them, [samples, d_in], of a transcoder [samples, d_in + outputs].

    Raises:
        UserError: they are none, or the parameters or the settings are none.
    """
    return _checked(rows, "samples", ("input", "target"), params, settings)


def split(rows: Batch, settings: LaneSettings) -> tuple[Batch, Batch]:
    """(what an encoder sees of rows, what is to be reconstructed of them): the rows themselves, or [x | y] as x and y.

    Args:
        rows: [samples, d_in]; of a transcoder [samples, d_in + outputs].
        settings: of the lane.
    """
    outputs = settings.architecture.outputs(settings.model)
    width = rows.shape[1] - outputs
    return (rows[:, :width], rows[:, width:]) if outputs else (rows, rows)


def check_codes(codes: Any, params: Mapping[str, Any], settings: LaneSettings) -> Any:
    """Codes as an array, traced or NumPy's: [samples, d_hidden] of real numbers, d_hidden the parameters' own.

    Raises:
        UserError: they are not, or the parameters or the settings are none.
    """
    return _checked(codes, "codes", ("unit",), params, settings)


def width_of(dim: str, params: Mapping[str, Any], settings: LaneSettings) -> int | None:
    """How many inputs ("input"), targets or units the parameters have; None where none of them is over these."""
    declared = settings.architecture.parameters(settings.model)
    sizes = (
        params[name].shape[parameter.dims.index(dim)]
        for name, parameter in declared.items()
        if name in params and dim in parameter.dims
    )
    return next(map(int, sizes), None)


def _checked(values: Any, what: str, dims: tuple[str, ...], params: Mapping[str, Any], settings: LaneSettings) -> Any:
    check_lane(settings)
    _check_params(params, settings)
    widths = [width_of(dim, params, settings) for dim in dims]
    width = sum(filter(None, widths)) or None
    columns = dims[0] if width is None else width
    if not isinstance(values, jax.Array):
        values = as_array(values, what, f"[samples, {columns}]")
    shape, dtype = values.shape, values.dtype
    if len(shape) != 2 or width not in (None, shape[1]):
        names = ", ".join(f"{name} {list(value.shape)}" for name, value in params.items() if "weight" in name)
        fix = "for one sample use x[None]" if tuple(shape) == (width,) else "these parameters take no others"
        raise UserError(f"{what} must be an array [samples, {columns}] for {names}: got shape {list(shape)}; {fix}")
    if not holds_reals(dtype, "fiub"):
        raise UserError(f"{what} must be real numbers: got dtype {dtype}; convert them to float32")
    # JAX has no floats of more than 8 bytes.
    return values if dtype.itemsize <= 8 else values.astype(np.float32)


def _check_params(params: Any, settings: LaneSettings) -> None:
    declared = settings.architecture.parameters(settings.model)
    arrays = isinstance(params, Mapping) and all(hasattr(value, "shape") for value in params.values())
    if not arrays or not set(params) & set(declared):
        names = ", ".join(declared)
        raise UserError(f"params must hold arrays by name, {names}: got {received(params)}; use those of a lane")

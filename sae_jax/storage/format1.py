"""Files of format 1, made into what today's version writes.

Format 1 held encoder_weight as [..., input, unit], called the terms' curves reconstruction and penalty, and declared
neither axes nor kinds; of a parameter it declared the dimensions alone, as in "rho,seed,unit,input".
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import xarray as xr

from sae_jax.storage.description import FORMAT, format_of

CURVES = {"reconstruction": "loss_reconstruction", "penalty": "loss_kl"}
STATUS = ("diverged_at", "stopped_at", "image_height", "image_width")
PARAMETERS = {
    "encoder_weight": "encoder rows We",
    "encoder_bias": "encoder bias be",
    "decoder_weight": "decoder rows Wd (the encoder's where tied)",
    "decoder_bias": "decoder bias bd",
}


def upgrade(dataset: xr.Dataset, parameters: Mapping[str, xr.Variable]) -> tuple[xr.Dataset, Mapping[str, xr.Variable]]:
    """Results and parameters as today's version writes them; each of the two files may be of either format.

    Args:
        dataset: what results.nc holds.
        parameters: what params.safetensors holds, by name; those of format 1 have no attributes.

    Returns:
        (the Dataset, the parameters by name) of today's format.

    Raises:
        KeyError, ValueError: results of format 1 lack what each of them has.
    """
    if format_of(dataset) == 1:
        dims = list(map(str, dataset["eval_reconstruction"].dims))
        dataset = dataset.rename({old: new for old, new in CURVES.items() if old in dataset.data_vars})
        dataset = dataset.assign_attrs(format=FORMAT, axes=json.dumps(dims[: dims.index("seed")]))
        for name, variable in dataset.data_vars.items():
            variable.attrs["kind"] = _kind(str(name), variable)
    return dataset, {
        name: variable if variable.attrs else _upgraded(name, variable) for name, variable in parameters.items()
    }


def _kind(name: str, variable: xr.DataArray) -> str:
    if "step" in variable.dims:
        return "curve"
    if name.startswith("eval_"):
        return "measure"
    return "status" if name in STATUS else "task"


def _upgraded(name: str, variable: xr.Variable) -> xr.Variable:
    if name == "encoder_weight" and variable.dims[-2:] == ("input", "unit"):
        variable = variable.transpose(..., "unit", "input")
    attributes = {"long_name": PARAMETERS.get(name, name), "units": "1", "kind": "parameter"}
    return xr.Variable(variable.dims, variable.values, attributes)

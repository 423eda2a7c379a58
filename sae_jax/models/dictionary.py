"""What the dictionaries of the modern line share: settings, reconstruction, help for dead units, what is frozen.

    z = (x - bd) We^T + be,  f = codes of z,  x_hat = f Wd + bd

An architecture adds how codes are made of z and what keeps them sparse; every part crosses with each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from sae_jax.models import base, prefixes, resampling, rows, transcoder
from sae_jax.models.base import Batch, Codes, Key, Measure, Parameter, Params, Scalar, Tree
from sae_jax.models.dictionary_memory import Memory, Seen, start_memory, update_memory
from sae_jax.models.linear import product
from sae_jax.settings import (
    AT_LEAST_ONE,
    CLOSED_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    TEXT,
    TRUE_OR_FALSE,
    Unread,
    UserError,
    one_of,
    static,
    swept,
)

PREFIXES = "nested prefixes of the units, each of which reconstructs alone: 64,256 or 1/4,1/2 or drawn:5"
RESAMPLING = ("resample_times", "resample_span")
PARAMETERS = {
    "encoder_weight": Parameter(("unit", "input"), "encoder rows We"),
    "encoder_bias": Parameter(("unit",), "encoder bias be"),
    "decoder_weight": Parameter(("unit", "input"), "decoder rows Wd"),
    "decoder_bias": Parameter(("input",), "decoder bias bd, which the encoder subtracts from its input"),
}


@struct.dataclass
class Settings(base.Settings):
    """Settings of every dictionary."""

    UNREAD: ClassVar[Unread] = {
        ("rows", "unit"): ("start_norm", "encoder_start"),
        ("prefixes", ""): ("prefix_errors",),
        ("outputs", 0): ("skip",),
        ("dead_units", "none"): ("aux", "aux_form", "pre_activation", "dead_after", *RESAMPLING),
        ("dead_units", "auxk"): ("pre_activation", *RESAMPLING),
        ("dead_units", "pre_activation"): ("aux", "aux_form", "dead_after", *RESAMPLING),
        ("dead_units", "pre_activation_dead"): ("aux", "aux_form", *RESAMPLING),
        ("dead_units", "resampling"): ("aux", "aux_form", "pre_activation"),
    }
    rows: str = static("free", one_of(("free", "unit")), "decoder rows: of any norm, or held at norm 1")
    start_norm: Any = swept(0.1, POSITIVE, "norm of the decoder rows at the start (rows free)")
    encoder_start: str = static(
        "unit", one_of(("unit", "decoder")), "encoder rows at the start: of norm 1, or the decoder rows themselves"
    )
    centre: str = static(
        "zero", one_of(("zero", "mean", "median")), "decoder bias at the start: 0, or mean or geometric median of x"
    )
    prefixes: str = static("", TEXT, PREFIXES)
    prefix_errors: str = static("mean", one_of(("mean", "sum")), "their errors' mean, or their sum as in SAELens")
    frozen: str = static(
        "none", one_of(("none", "decoder", "encoder", "soft")), "what stays as it starts; soft: decoder rows near it"
    )
    dead_units: str = static(
        "none",
        one_of(("none", "auxk", "pre_activation", "pre_activation_dead", "resampling")),
        "help for dead units: AuxK, a term that lifts pre-activations of all units or dead ones, or a new start",
    )
    aux: Any = swept(1 / 32, NON_NEGATIVE, "weight of AuxK")
    aux_form: str = static("normalised", one_of(("normalised", "full")), "AuxK's error over its variance, or in full")
    pre_activation: Any = swept(3e-6, NON_NEGATIVE, "weight of the pre-activations' distance below their thresholds")
    dead_after: Any = swept(20_000, AT_LEAST_ONE, "samples without firing after which a unit is dead", "sample")
    resample_times: Any = swept(4, AT_LEAST_ONE, "how often dead units begin anew")
    resample_span: Any = swept(0.5, CLOSED_UNIT, "fraction of the steps over which they do, evenly apart")
    products: str = static(
        "float32", one_of(("float32", "bfloat16")), "factors of matrix products, which are summed in float32"
    )
    activation_dtype: str = static(
        "float32", one_of(("float32", "bfloat16")), "what pre-activations and codes of a training step are stored in"
    )
    outputs: int = static(
        0, NON_NEGATIVE, "numbers of a target that is made of each sample, a transcoder; targets say it themselves"
    )
    skip: bool = static(False, TRUE_OR_FALSE, "a linear map of the inputs is added to what is made of the codes")


def parameters(s: Settings) -> dict[str, Parameter]:
    """What every dictionary with an encoder holds."""
    return transcoder.parameters(PARAMETERS, s)


def init(key: Key, d_in: int, s: Settings) -> Params:
    """Decoder rows in random directions, the encoder's along them, biases 0."""
    norm = 1.0 if s.rows == "unit" else s.start_norm
    if s.outputs:
        params = transcoder.init(key, d_in, s, norm)
    else:
        params = rows.directions(key, d_in, s.d_hidden, norm, norm if s.encoder_start == "decoder" else 1.0)
    return params | ({"decoder_start": params["decoder_weight"]} if s.frozen == "soft" else {})


def statistics(s: Settings) -> tuple[str, ...]:
    """Where the decoder's bias starts, unless that is 0."""
    return () if s.centre == "zero" else (s.centre,)


def place(params: Params, values: Mapping[str, Array], s: Settings) -> Params:
    """The decoder's bias at the mean or the geometric median of the samples, or at the mean of the targets.

    Source: Bricken et al. 2023, appendix "Advice for training sparse autoencoders" (geometric median).
    """
    if s.centre == "zero":
        return params
    start = jnp.asarray(values[s.centre], jnp.float32)
    return params | {"decoder_bias": start[-s.outputs :] if s.outputs else start}


def pre_activations(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """z = (x - bd) We^T + be, [batch, d_hidden]."""
    return product(centred(params, x, s).T, params["encoder_weight"].T, s.products, True) + params["encoder_bias"][None]


def centred(params: Params, x: Batch, s: Settings) -> Array:
    """x - bd; x itself where bd lies among targets."""
    return jnp.asarray(x if s.outputs else x - subtracted(params, s)[None])


def subtracted(params: Params, s: Settings) -> Float[Array, " d_in"]:
    """What the encoder subtracts of its input: bd, or 0."""
    weight, bias = params["encoder_weight"], params["decoder_bias"]
    return jnp.zeros(weight.shape[1], bias.dtype) if s.outputs else bias


def stored(values: Tree, s: Settings) -> Tree:
    """Pre-activations, or what is made of them, as a training step stores them; parameters and sums stay float32."""
    if s.activation_dtype == "float32":
        return values
    return jax.tree.map(lambda one: one.astype(s.activation_dtype), values)


def decode(params: Params, codes: Codes, s: Settings) -> Float[Array, "batch d_in"]:
    """x_hat = f Wd + bd, [batch, d_in]."""
    return product(jnp.asarray(codes).T, params["decoder_weight"], s.products, False) + params["decoder_bias"][None]


def active(codes: Codes, s: Settings) -> Bool[Array, "batch d_hidden"]:
    """Which codes count as active."""
    return jnp.asarray(codes) != 0


def gradient(params: Params, to_params: Params, s: Settings) -> Params:
    """Without what is frozen, and for unit rows without what would only lengthen them."""
    changed = dict(to_params)
    if s.rows == "unit":
        changed["decoder_weight"] = rows.tangential(params["decoder_weight"], to_params["decoder_weight"])
    still = {"decoder": ("decoder_weight",), "encoder": ("encoder_weight", "encoder_bias"), "soft": ("decoder_start",)}
    for name in still.get(s.frozen, ()):
        changed[name] = jnp.zeros_like(params[name])
    return changed


def constrain(params: Params, state: Memory, s: Settings) -> Params:
    """Decoder rows of norm 1, and near their start, where settings say so."""
    decoder = params["decoder_weight"]
    if s.frozen == "soft":
        decoder = rows.near(decoder, params["decoder_start"])
    return params | {"decoder_weight": rows.unit_rows(decoder) if s.rows == "unit" else decoder}


def renew(
    params: Params, seen: Seen, s: Settings, share: float = resampling.ENCODER_SHARE, **start: Scalar
) -> tuple[Params, dict[str, Array]]:
    """The parameters with the units anew that a step has resampled, and which of their values are new.

    Args:
        params: after the step.
        seen: of its batch.
        s: settings.
        share: norm of a new encoder row in units of the others' mean norm.
        start: of other parameters by unit, where their start is not 0.
    """
    return (params, {}) if seen.replaced is None else resampling.renew(params, seen, s.rows == "unit", share, start)


def held(s: Settings) -> int:
    """Arrays of a batch's codes that drawn prefixes hold, one after another, and that AuxK does."""
    return 2 * prefixes.drawn(s.prefixes) + (s.dead_units == "auxk")


def finish(params: Params, state: Memory, s: Settings) -> Params:
    """Without what only the training needs."""
    return {name: value for name, value in params.items() if name != "decoder_start"}


def measures(s: Settings) -> dict[str, Measure]:
    """Mean and largest code of every unit on held-out data."""
    return {
        "mean_activation": Measure(
            lambda lane: jnp.mean(lane.codes, axis=0), "mean code on held-out data", "input units", ("unit",)
        ),
        "max_activation": Measure(
            lambda lane: jnp.max(lane.codes, axis=0), "largest code on held-out data", "input units", ("unit",)
        ),
    }


def check(s: Settings) -> None:
    """Refuse prefixes that do not nest, and rows that are to stay and to begin anew.

    Raises:
        UserError: there are such.
    """
    transcoder.check(s)
    if not prefixes.drawn(s.prefixes):
        prefixes.widths(s.prefixes, s.d_hidden)
    if s.dead_units == "resampling" and s.frozen != "none":
        raise UserError(f"dead_units resampling needs rows that may change: got frozen {s.frozen}; use frozen none")


def check_units(name: str, value: Any, s: Settings) -> None:
    """Refuse more active units than there are.

    Raises:
        UserError: `value`, of a swept setting by name, exceeds d_hidden somewhere.
    """
    highest = 0 if value is None else float(np.max(value))
    if highest > s.d_hidden:
        raise UserError(f"{name} must be at most d_hidden: got {highest:g} of {s.d_hidden}; use fewer, or more units")


# What the gradient of one fixed loss asks for.
EXACT = {
    "rows": "free",
    "frozen": "none",
    "dead_units": "none",
    "products": "float32",
    "activation_dtype": "float32",
}
# What a record of a dictionary has unless its file says otherwise.
SHARED: dict[str, Any] = {
    "parameters": parameters,
    "init": init,
    "statistics": statistics,
    "place": place,
    "decode": decode,
    "active": active,
    "active_rule": lambda s: "code != 0",
    "memory": start_memory,
    "update": update_memory,
    "finish": finish,
    "gradient": gradient,
    "constrain": constrain,
    "renew": renew,
    "measures": measures,
    "arrays": held,
    "exact": lambda s: EXACT,
    "check": check,
    "outputs": lambda s: s.outputs,
    "bypass": transcoder.bypass,
}

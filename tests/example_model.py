"""A model beside those of the package that uses what they leave at its default."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from sae_jax.models import Measure, Model, Parameter, Term, base
from sae_jax.models.terms import l1_penalty, reconstruction_loss
from sae_jax.settings import HALF_OPEN_UNIT, NON_NEGATIVE, TRUE_OR_FALSE, static, swept


@struct.dataclass
class Settings(base.Settings):
    """Settings of the example."""

    sparsity: Any = swept(0.1, NON_NEGATIVE, "weight of the codes' L1 norm, in units of their peaks", off=0.0)
    peak_decay: Any = swept(0.9, HALF_OPEN_UNIT, "decay per step of every unit's peak")
    centred: bool = static(True, TRUE_OR_FALSE, "the encoder subtracts the decoder's bias from its input")


class Peaks(NamedTuple):
    """What the example carries: the decaying peak of every unit, and how often units fired on how many samples."""

    peak: Array
    fired: Array
    samples: Array


def parameters(s):
    """A unit's threshold and how many units fire are known at the end alone."""
    return {
        "encoder_weight": Parameter(("unit", "input"), "encoder rows"),
        "encoder_bias": Parameter(("unit",), "encoder bias"),
        "decoder_weight": Parameter(("unit", "input"), "decoder rows, of norm 1"),
        "decoder_bias": Parameter(("input",), "decoder bias"),
        "threshold": Parameter(("unit",), "codes below are 0 at inference"),
        "active_units": Parameter((), "units that fired on a sample of the training, on average"),
    }


def terms(s):
    """Of `loss`."""
    on = {} if s.sparsity is None else {"sparsity": Term("sparsity * mean ||h / peak||_1", "1")}
    return {"reconstruction": Term("reconstruction term", "squared input units per sample")} | on


def unit_rows(rows):
    """Rows scaled to norm 1."""
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def init(key, d_in, s):
    """The decoder's rows are directions drawn at random, the encoder's start as the same."""
    rows = unit_rows(jax.random.normal(key, (s.d_hidden, d_in)))
    return {
        "encoder_weight": rows,
        "encoder_bias": jnp.zeros(s.d_hidden),
        "decoder_weight": rows,
        "decoder_bias": jnp.zeros(d_in),
    }


def encode(params, x, s):
    """relu(z), 0 below the threshold of a finished lane."""
    centred = x - params["decoder_bias"][None] if s.centred else x
    codes = jax.nn.relu(centred @ params["encoder_weight"].T + params["encoder_bias"][None])
    return jnp.where(codes < params.get("threshold", jnp.zeros(s.d_hidden))[None], 0.0, codes)


def decode(params, codes, s):
    """h Wd + bd."""
    return codes @ params["decoder_weight"] + params["decoder_bias"][None]


def loss(params, memory, step, s):
    """Codes are weighed by their unit's peak over the whole batch, however it is split."""
    codes = encode(params, step.x, s)
    peak = step.across.max(jnp.max(codes, axis=0))
    fired = step.across.sum(jnp.sum(codes > 0, axis=0, dtype=jnp.float32))
    samples = step.across.sum(jnp.float32(len(codes)))
    values = {"reconstruction": reconstruction_loss(decode(params, codes, s), step.target, "squared_error", "linear")}
    if s.sparsity is not None:
        scale = peak if memory is None else jnp.maximum(peak, memory.peak)
        values["sparsity"] = s.sparsity * l1_penalty(codes / (scale + 0.1)[None])
    return values, Peaks(peak, fired, samples)


def update(memory, seen, s):
    """Peaks decay, counts add up."""
    peak = jnp.maximum(s.peak_decay * memory.peak, seen.peak)
    return Peaks(peak, memory.fired + seen.fired, memory.samples + seen.samples)


def finish(params, memory, s):
    """A unit's threshold is a tenth of its peak."""
    active_units = jnp.sum(memory.fired) / jnp.maximum(memory.samples, 1)
    return params | {"threshold": 0.1 * memory.peak, "active_units": active_units}


def gradient(params, gradient, s):
    """Without what would only lengthen the decoder's rows."""
    rows, to_rows = params["decoder_weight"], gradient["decoder_weight"]
    along = jnp.sum(rows * to_rows, axis=1, keepdims=True) * rows
    return gradient | {"decoder_weight": to_rows - along}


EXAMPLE = Model(
    name="example",
    Settings=Settings,
    parameters=parameters,
    terms=terms,
    init=init,
    encode=encode,
    decode=decode,
    active=lambda codes, s: codes > 0,
    active_rule=lambda s: "code > 0",
    loss=loss,
    memory=lambda s: Peaks(jnp.zeros(s.d_hidden), jnp.zeros(s.d_hidden), jnp.float32(0)),
    update=update,
    finish=finish,
    gradient=gradient,
    constrain=lambda params, memory, s: params | {"decoder_weight": unit_rows(params["decoder_weight"])},
    measures=lambda s: {
        "largest_code": Measure(lambda lane: jnp.max(lane.codes, axis=0), "largest code", dims=("unit",))
    },
)

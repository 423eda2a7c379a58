"""Resampling: units that no longer fire begin anew, at samples that the others rebuild badly.

Source: Bricken et al. 2023, "Towards monosemanticity", appendix "Neuron resampling".
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sae_jax.models import rows
from sae_jax.models.base import Across, Batch, Params, Scalar, Step
from sae_jax.models.dictionary_memory import Seen

# Norm of a new encoder row in units of the mean norm of the others' rows.
ENCODER_SHARE = 0.2


def due(step: Step, times: Scalar, span: Scalar) -> Bool[Array, ""]:
    """Whether dead units begin anew after a step: `times` times, evenly apart, the last one at `span` of all steps."""
    number = jnp.asarray(0.0 if step.number is None else step.number, jnp.float32)
    reached = jnp.floor(jnp.minimum((number + jnp.arange(2.0)) / jnp.maximum(span * step.steps, 1), 1) * times)
    return reached[1] > reached[0]


def choose(
    residual: Batch, x: Batch, dead: Bool[Array, " d_hidden"], across: Across
) -> tuple[Bool[Array, " d_hidden"], Float[Array, "d_hidden d_in"]]:
    """Samples for dead units, sample i in proportion to the square of its error, ||e_i||^4, none for two of them.

    The u-th of U dead units takes the sample in whose share of the whole (u + 1/2) / U lies: systematic sampling, which
    needs no draw. Units of one row would stay equal for ever: where several come to a sample, the first one takes it,
    and the others stay as they are. The whole batch's samples are in the order of its devices.

    Args:
        residual: e, [batch, d_in].
        x: the samples, [batch, d_in].
        dead: which units are, [d_hidden].
        across: statistics of the whole batch.

    Returns:
        (which units take a sample, their samples scaled to norm 1; 0 for the others).

    Source: Bricken et al. 2023, "Neuron resampling", there from 819,200 samples; Cochran 1977, chapter 8.
    """
    errors = jnp.sum(jnp.square(jax.lax.stop_gradient(residual)), axis=1)
    # Of the largest one: their squares would leave single precision early.
    largest = across.max(jnp.max(errors))
    ends = jnp.cumsum(jnp.square(errors / jnp.where(largest > 0, largest, 1)))
    shares = jnp.cumsum(across.gather(ends[-1]))
    device = across.device()
    begin = jnp.where(device > 0, shares[device - 1], 0)
    place = (jnp.cumsum(dead) - 0.5) / jnp.maximum(jnp.sum(dead), 1) * shares[-1]
    here = dead & (place > begin) & (place <= shares[device])
    index = jnp.clip(jnp.searchsorted(ends, place - begin), 0, len(ends) - 1)
    # Numbers of samples from 1, ascending over the dead units.
    number = jnp.where(dead, across.sum(jnp.where(here, device * len(ends) + index + 1, 0)), 0)
    before = jnp.roll(jax.lax.cummax(number), 1).at[0].set(0)
    first = dead & (number > before)
    samples = across.sum(jnp.where((here & first)[:, None], jnp.asarray(x)[index], 0))
    return first, rows.unit_rows(samples)


def renew(
    params: Params, seen: Seen, unit: bool, share: float, start: Mapping[str, Scalar]
) -> tuple[Params, dict[str, Array]]:
    """The parameters with new units: rows along a sample, the encoder's of a share of the others' norm, biases 0.

    Args:
        params: after the step.
        seen: replaced and replacement are read.
        unit: whether decoder rows are of norm 1; else new ones are of the others' mean norm.
        share: norm of a new encoder row in units of the others' mean norm.
        start: of other parameters by unit, where their start is not 0.

    Returns:
        (the parameters; by name, which of their values are new, for which the optimizer begins anew, too).
    """
    new, others = seen.replaced, jnp.logical_not(seen.replaced)

    def mean_norm(weight: Array) -> Array:
        return jnp.sum(jnp.where(others, rows.norms(weight), 0)) / jnp.maximum(jnp.sum(others), 1)

    changed, fresh = dict(params), {}
    for name, value in params.items():
        if value.shape[:1] != new.shape or name == "decoder_bias":
            continue
        if name == "decoder_weight":
            begun = seen.replacement * (1.0 if unit else mean_norm(value))
        elif name == "encoder_weight":
            begun = seen.replacement * share * mean_norm(value)
        else:
            begun = jnp.full_like(value, start.get(name, 0.0))
        fresh[name] = jnp.broadcast_to(new if value.ndim == 1 else new[:, None], value.shape)
        changed[name] = jnp.where(fresh[name], begun, value)
    return changed, fresh

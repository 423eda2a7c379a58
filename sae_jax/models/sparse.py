"""Codes of which few are not zero, as a list: rows of weights are gathered and scattered, and no zero is multiplied.

    x_hat_i = sum of v Wd_u over the entries (i, u, v) of sample i

An entry costs 3 rows that are read and 2 that are added to, for which a product would multiply by all units. Entries
are in the order of their units, so that a row of the weights is still in the cache when the next one adds to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sae_jax.models.base import Batch, Params
from sae_jax.models.choice import TURN, Choice

# With so many units for each active one, and with more, a list is faster than products; see docs/performance.md.
WORTH = 32


class SparseCodes(NamedTuple):
    """The codes of a batch that are not zero.

    Attributes:
        values: f, [entries]; some may be 0.
        samples, units: of every entry, [entries], the units ascending.
    """

    values: Float[Array, " entries"]
    samples: Int[Array, " entries"]
    units: Int[Array, " entries"]


def codes_of(params: Params, subtracted: Array, x: Batch, choice: Choice, rectify: bool) -> SparseCodes:
    """The chosen codes, f = z where it was chosen, rectified unless signs are to stay.

    Args:
        params: encoder_weight and encoder_bias receive the gradient.
        subtracted: bd, of every sample, which receives it too; 0 where the encoder sees samples as they are, [d_in].
        x: samples, [batch, d_in].
        choice: of their codes.
        rectify: whether negative codes are 0.
    """
    weights = (params["encoder_weight"], params["encoder_bias"], subtracted)
    z = _pre_activations(*weights, x, choice.pre_activations, choice.samples, choice.units)
    values = jax.nn.relu(z) if rectify else z
    return SparseCodes(jnp.where(choice.chosen, values, 0), choice.samples, choice.units)


def nested_errors(
    params: Params, codes: SparseCodes, target: Batch, sizes: Float[Array, " prefixes"]
) -> tuple[Float[Array, " prefixes"], Float[Array, "batch d_in"]]:
    """Squared error of every prefix of the units, mean_i ||x_i - x_hat_i,0:m||^2.

    Args:
        params: decoder_weight and decoder_bias are read.
        codes: of the batch.
        target: x, [batch, d_in].
        sizes: m, ascending, all units last.

    Returns:
        (an error for each size, what all units leave of the target, [batch, d_in]).
    """
    batch = len(target)
    part = jnp.sum(codes.units[:, None] >= sizes[None, :-1], axis=1, dtype=jnp.int32)
    places = part * batch + codes.samples
    rows = len(sizes) * batch
    parts = _weighted_rows(codes.values, params["decoder_weight"], places, codes.units, rows)
    rebuilt = jnp.cumsum(parts.reshape(len(sizes), batch, -1), axis=0)
    residuals = jnp.asarray(target - params["decoder_bias"][None])[None] - rebuilt
    return jnp.mean(jnp.sum(jnp.square(residuals), axis=2), axis=1), residuals[-1]


def firing(codes: SparseCodes, batch: int, d_hidden: int) -> Float[Array, " d_hidden"]:
    """Share of a batch's samples on which each unit fires, [d_hidden]."""
    fired = (codes.values != 0).astype(jnp.float32)
    return jnp.zeros(d_hidden, jnp.float32).at[codes.units].add(fired) / batch


def by_list_or_all(
    complete: Array,
    helped: Array | None,
    few: Callable[[Params, bool], Any],
    every: Callable[[Params], Any],
    params: Params,
) -> Any:
    """few(params, whether dead units are helped) where the list of codes is complete, else every(params).

    All but the first branch are computed again for their gradients: what they would save for those, the first would
    have to fill with zeros.

    Args:
        complete: whether the list holds all codes.
        helped: whether units are helped that the list has not; None where they never are.
        few, every: by the list and by all codes.
        params: of both, which receive the gradient.
    """
    branches: list[Callable[[Params], Any]] = [lambda params: few(params, False), jax.checkpoint(every)]
    place = (~complete).astype(jnp.int32)
    if helped is not None:
        branches.append(jax.checkpoint(lambda params: few(params, True)))
        place = jnp.where(complete & helped, 2, place)
    return jax.lax.switch(place, branches, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _weighted_rows(values: Array, weight: Array, places: Array, units: Array, size: int) -> Array:
    """out_p = sum of v W_u over the entries of place p, [size, d_in]."""
    return _added(values, places, weight, units, size, by_unit=False)


def _weighted_rows_fwd(values: Array, weight: Array, places: Array, units: Array, size: int) -> Any:
    return _weighted_rows(values, weight, places, units, size), (values, weight, places, units)


def _weighted_rows_bwd(size: int, residuals: Any, cotangent: Array) -> Any:
    values, weight, places, units = residuals
    to_values = _dots(cotangent, places, weight, units)
    to_weight = _added(values, units, cotangent, places, len(weight), by_unit=True)
    return to_values, to_weight, None, None


_weighted_rows.defvjp(_weighted_rows_fwd, _weighted_rows_bwd)


@jax.custom_vjp
def _pre_activations(
    encoder_weight: Array,
    encoder_bias: Array,
    subtracted: Array,
    x: Array,
    z: Array,
    samples: Array,
    units: Array,
) -> Array:
    """z of every entry, which is known, with the gradient of (x - bd) We^T + be; none goes to x."""
    return z


def _pre_activations_fwd(*arguments: Array) -> Any:
    return arguments[4], arguments


def _pre_activations_bwd(residuals: Any, cotangent: Array) -> Any:
    encoder_weight, encoder_bias, subtracted, x, _, samples, units = residuals
    centred = x - subtracted[None]
    to_weight = _added(cotangent, units, centred, samples, len(encoder_weight), by_unit=True)
    to_bias = jnp.zeros_like(encoder_bias).at[units].add(cotangent)
    # The bias is subtracted from every sample alike, so that the units' sums are all it needs.
    return to_weight, to_bias, -(to_bias @ encoder_weight), None, None, None, None


_pre_activations.defvjp(_pre_activations_fwd, _pre_activations_bwd)


def _added(factors: Array, to: Array, rows: Array, of: Array, size: int, by_unit: bool) -> Array:
    """out[to] += factor * rows[of], entry by entry, [size, d_in]; by_unit says that `to` ascends."""

    def turn(out: Array, entries: tuple[Array, ...]) -> tuple[Array, None]:
        factors, to, of = entries
        added = factors[:, None] * rows.at[of].get(mode="promise_in_bounds")
        return out.at[to].add(added, mode="promise_in_bounds", indices_are_sorted=by_unit), None

    start = jnp.zeros((size, rows.shape[1]), jnp.result_type(factors, rows))
    return jax.lax.scan(turn, start, _in_turns(factors, to, of))[0]


def _dots(left: Array, left_of: Array, right: Array, right_of: Array) -> Array:
    """left[left_of] . right[right_of], entry by entry, [entries]."""

    def turn(_: None, entries: tuple[Array, ...]) -> tuple[None, Array]:
        rows = left.at[entries[0]].get(mode="promise_in_bounds")
        return None, jnp.sum(rows * right.at[entries[1]].get(mode="promise_in_bounds"), axis=1)

    return jax.lax.scan(turn, None, _in_turns(left_of, right_of))[1].reshape(-1)


def _in_turns(*entries: Array) -> tuple[Array, ...]:
    width = min(TURN, len(entries[0]))
    return tuple(part.reshape(-1, width) for part in entries)

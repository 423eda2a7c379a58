"""The loss that the dictionaries of the modern line share: reconstruction, and what helps dead units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sae_jax.models import dead, dictionary, prefixes, resampling, sparse, transcoder
from sae_jax.models.base import Codes, Params, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen, seen_of
from sae_jax.models.sparse import SparseCodes


def squares(s: Any) -> str:
    """The units of a squared error: those of what is reconstructed, the inputs or the targets."""
    return f"squared {'target' if s.outputs else 'input'} units per sample"


def shared_terms(s: Any) -> dict[str, Term]:
    """The terms of `shared_loss`, in its order."""
    count = prefixes.drawn(s.prefixes) or len(prefixes.widths(s.prefixes, s.d_hidden))
    of = "reconstruction term" if count == 1 else f"reconstruction term, {s.prefix_errors} over {count} prefixes"
    units = squares(s)
    terms = {"reconstruction": Term(of, units)}
    if s.dead_units == "auxk":
        terms["aux"] = Term("aux * error of dead units on the residual", "1" if s.aux_form == "normalised" else units)
    if s.dead_units.startswith("pre_activation"):
        terms["pre_activation"] = Term("pre_activation * mean sum_j max(0, theta_j - z_j) ||Wd_j||", units)
    return terms


def shared_loss(
    params: Params,
    state: Memory | None,
    step: Step,
    s: Any,
    z: Codes,
    codes: Codes,
    threshold: Array | None = None,
    strength: Codes | None = None,
) -> tuple[dict[str, Array], Seen]:
    """The terms that every architecture has, and what its memory is to see of the batch.

    Args:
        params: as `init` returns them.
        state: what is carried; None takes no unit for dead.
        step: the batch, and statistics of the whole of it.
        s: settings.
        z: pre-activations, [batch, d_hidden].
        codes: f, [batch, d_hidden].
        threshold: what a unit's z must exceed for it to fire, [d_hidden]; None is 0.
        strength: what units are chosen by, [batch, d_hidden]; None is z.
    """
    step = transcoder.left_to_codes(params, step, s)
    if s.prefixes:
        reconstruction, residual = prefixes.reconstruction(params, codes, step, s)
    else:
        residual = jnp.asarray(step.target) - dictionary.decode(params, codes, s)
        reconstruction = jnp.mean(jnp.sum(jnp.square(residual), axis=1))
    rates = jnp.mean(dictionary.active(codes, s), axis=0, dtype=jnp.float32)
    whole = (z, z if strength is None else strength)
    seen = seen_of(rates, codes, step)
    return _with_help(
        params, state, step, s, reconstruction, residual, seen, lambda: whole, any_to_help(state, s), threshold
    )


def any_to_help(state: Memory | None, s: Any) -> Array | None:
    """Whether AuxK has any unit to help; None where there is no AuxK."""
    return dead.any_lane(_silent(state, s)) if s.dead_units == "auxk" else None


def _silent(state: Memory | None, s: Any) -> Array:
    """Which units are dead, [d_hidden]."""
    if state is None or state.silence is None:
        return jnp.zeros(s.d_hidden, bool)
    return state.silence.silent >= s.dead_after


def shared_loss_of_list(
    params: Params,
    state: Memory | None,
    step: Step,
    s: Any,
    codes: SparseCodes,
    whole: Callable[[], tuple[Codes, Codes]],
    helped: bool,
) -> tuple[dict[str, Array], Seen]:
    """What `shared_loss` returns, from codes that are a list.

    Args:
        params, state, step, s: as there.
        codes: f.
        whole: computes z and what units are chosen by, each [batch, d_hidden], where a term needs all of them.
        helped: whether AuxK has any unit to help, decided when the branch is.
    """
    step = transcoder.left_to_codes(params, step, s)
    errors, residual = sparse.nested_errors(params, codes, step.target, prefixes.sizes_of(step, s))
    seen = seen_of(sparse.firing(codes, len(step.x), s.d_hidden), codes.values, step)
    return _with_help(params, state, step, s, prefixes.combined(errors, s), residual, seen, whole, helped, None)


def _with_help(
    params: Params,
    state: Memory | None,
    step: Step,
    s: Any,
    reconstruction: Array,
    residual: Array,
    seen: Seen,
    whole: Callable[[], tuple[Codes, Codes]],
    helped: bool | Array | None,
    threshold: Array | None,
) -> tuple[dict[str, Array], Seen]:
    """The reconstruction term and those that help dead units; what is seen, with the units that begin anew."""
    values = {"reconstruction": reconstruction}
    silent = _silent(state, s)
    if s.dead_units == "auxk":
        # The residual without the bias: dead units rebuild what the others leave.
        error = dead.auxiliary_error if s.aux_form == "normalised" else dead.auxiliary_error_in_full

        def unexplained() -> Array:
            z, strength = whole()
            rebuilt = error(params, z, silent, residual, step.across, strength, s.products)
            return jnp.asarray(s.aux * rebuilt, reconstruction.dtype)

        nothing = jnp.zeros_like(reconstruction)
        if isinstance(helped, bool):
            values["aux"] = unexplained() if helped else nothing
        else:
            values["aux"] = jax.lax.cond(helped, unexplained, lambda: nothing)
    if s.dead_units.startswith("pre_activation"):
        among = silent if s.dead_units == "pre_activation_dead" else jnp.ones(s.d_hidden, bool)
        theta = jnp.zeros(s.d_hidden) if threshold is None else threshold
        values["pre_activation"] = s.pre_activation * dead.shortfall(params, whole()[0], theta, among)
    if s.dead_units == "resampling":
        silent &= resampling.due(step, s.resample_times, s.resample_span)
        centred = step.target - params["decoder_bias"][None]
        replaced, replacement = jax.lax.cond(
            dead.any_lane(silent),
            lambda: resampling.choose(residual, centred, silent, step.across),
            lambda: (silent, jnp.zeros((s.d_hidden, centred.shape[1]), centred.dtype)),
        )
        seen = seen._replace(replaced=replaced, replacement=replacement)
    return values, seen

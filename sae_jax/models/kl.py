"""The KL sparsity penalty, with its gradient injected at the codes by a `jax.custom_vjp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.models.base import Codes, Scalar, UnitMeans
from sae_jax.settings import MOST, UserError, holds_reals, received

# Mean activations nearer to 0 or 1 than this are beyond float32: there the KL divergence continues along its tangent.
EPSILON = 1e-6


def kl_divergence(rho: Scalar, mean_activation: UnitMeans) -> Float[Array, " d_hidden"]:
    """KL(rho || rho_hat) between two Bernoulli means, per unit, in nats.

        f(q) = rho log(rho / q) + (1 - rho) log((1 - rho) / (1 - q))            for q in [eps, 1 - eps]
        f(q) = f(q0) + f'(q0) (q - q0),  q0 the nearer end of [eps, 1 - eps]    elsewhere

    so that value and slope are finite and continuous for every q, also for mean activations above 1.

    Args:
        rho: target mean activation, in (0, 1).
        mean_activation: rho_hat of each unit, [d_hidden].

    Raises:
        UserError: an argument is no number, or rho is out of its range.

    Source: Ng, CS294A notes, section 3.
    """
    _check_numbers("mean_activation", mean_activation)
    _check_rho(rho)
    inside = jnp.clip(mean_activation, EPSILON, 1 - EPSILON)
    value = rho * jnp.log(rho / inside) + (1 - rho) * jnp.log((1 - rho) / (1 - inside))
    return value + kl_slope(rho, mean_activation) * (mean_activation - inside)


def kl_slope(rho: Scalar, mean_activation: UnitMeans) -> Float[Array, " d_hidden"]:
    """d KL(rho || q) / dq = -rho / q + (1 - rho) / (1 - q), with q clipped to [eps, 1 - eps], per unit."""
    inside = jnp.clip(mean_activation, EPSILON, 1 - EPSILON)
    return -rho / inside + (1 - rho) / (1 - inside)


def _kl_slope_in_rho(rho: Scalar, mean_activation: UnitMeans) -> Float[Array, " d_hidden"]:
    inside = jnp.clip(mean_activation, EPSILON, 1 - EPSILON)
    along_tangent = (mean_activation - inside) * (-1 / inside - 1 / (1 - inside))
    return jnp.log(rho / inside) - jnp.log((1 - rho) / (1 - inside)) + along_tangent


def kl_penalty(activity: Codes, mean_activation: UnitMeans, rho: Scalar, beta: Scalar) -> Float[Array, ""]:
    """KL sparsity penalty: beta * sum_j KL(rho || rho_hat_j), with its gradient injected at the codes.

    The penalty is a function of the mean activation over all data, q_j = E[h_j], of which rho_hat_j is an estimate. A
    batch of m samples moves that mean by dq_j = (1/m) sum_i dh_ij, so the gradient that belongs to the codes is

        dP/dh_ij = beta f'(q_j) dq_j/dh_ij = (beta / m) (-rho / rho_hat_j + (1 - rho) / (1 - rho_hat_j)),

    evaluated at the estimate, wherever that came from. If rho_hat is this batch's own mean, this is the exact
    derivative. If rho_hat is a running average taken before this batch, autodiff would give nothing, and through an
    average that already holds the batch it would give (1 - lambda) times this: the rule states the gradient of the
    quantity that is meant. No gradient goes to rho_hat itself; beta and rho receive their true derivatives, beta's
    sum_j f(q_j) and rho's beta sum_j df/drho.

    Args:
        activity: codes on the penalty's scale (tanh codes as (h + 1) / 2), [m, d_hidden]. Under data parallelism
            these are the local codes and m their local number; averaging the gradients then makes m global.
        mean_activation: rho_hat, [d_hidden].
        rho: target mean activation, in (0, 1).
        beta: weight, >= 0.

    Returns:
        The penalty, a scalar in nats.

    Raises:
        UserError: an argument is no number, is out of its range, or does not fit the others.

    Source: Ng, CS294A notes, section 3; UFLDL, "Autoencoders and Sparsity".
    """
    for name, value in (("activity", activity), ("mean_activation", mean_activation), ("beta", beta)):
        _check_numbers(name, value)
    _check_rho(rho)
    if not _holds(beta, lambda known: 0 <= known < np.inf):
        raise UserError(f"beta must be >= 0 and finite: got {received(beta)}; 3 is a usual one")
    if np.ndim(activity) != 2:
        raise UserError(f"activity must be an array [m, d_hidden]: got {received(activity)}; use codes of a batch")
    if np.shape(activity)[1:] != np.shape(mean_activation):
        units = np.shape(activity)[1]
        raise UserError(
            f"mean_activation must be an array [d_hidden] for the {units} units of activity: "
            f"got {received(mean_activation)}; take both of one layer"
        )
    return _kl_penalty(activity, mean_activation, rho, beta)


def _check_rho(rho: Any) -> None:
    """Refuse a target that is no number in (0, 1), where it is known before the program runs."""
    _check_numbers("rho", rho)
    if not _holds(rho, lambda known: 0 < known < 1):
        raise UserError(f"rho must be in (0, 1): got {received(rho)}; 0.05 is a usual one")


def _holds(value: Any, rule: Callable[[Any], Any]) -> bool:
    """Whether something is one number, of which a rule holds where it is known before the program runs."""
    # Of an array of JAX, a rule that is looked at while a program is traced would become a part of it.
    return np.shape(value) == () and (isinstance(value, jax.core.Tracer) or bool(rule(np.asarray(value))))


def _check_numbers(name: str, value: Any) -> None:
    """Refuse what is neither a real number nor an array of them, which may be traced."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    array = isinstance(value, (np.ndarray, np.generic, jax.Array)) and not isinstance(value, np.ma.MaskedArray)
    # JAX has no floats of more than 8 bytes, and would take what lies under a mask.
    held = array and holds_reals(value.dtype) and value.dtype.itemsize <= 8
    if not plain and not held:
        raise UserError(f"{name} must be a real number or an array of them: got {received(value)}; use numpy.asarray")
    if isinstance(value, int) and abs(value) > MOST:
        raise UserError(f"{name} must be in [-{MOST}, {MOST}] as a whole number: got {received(value)}; use a float")


@jax.custom_vjp
def _kl_penalty(activity: Codes, mean_activation: UnitMeans, rho: Scalar, beta: Scalar) -> Float[Array, ""]:
    return beta * jnp.sum(kl_divergence(rho, mean_activation))


def _kl_penalty_fwd(activity: Codes, mean_activation: UnitMeans, rho: Scalar, beta: Scalar) -> tuple[Array, Any]:
    # Of the activity its samples and type alone: no value of it is in the slope.
    return _kl_penalty(activity, mean_activation, rho, beta), (activity[:, :0], mean_activation, rho, beta)


def _kl_penalty_bwd(residuals: Any, cotangent: Array) -> tuple[Array, Array, Array, Array]:
    samples, mean_activation, rho, beta = residuals
    per_unit = cotangent * beta * kl_slope(rho, mean_activation) / len(samples)
    to_rho = cotangent * beta * jnp.sum(_kl_slope_in_rho(rho, mean_activation))
    to_beta = cotangent * jnp.sum(kl_divergence(rho, mean_activation))
    return (
        jnp.broadcast_to(per_unit, (len(samples), len(per_unit))).astype(samples.dtype),
        jnp.zeros_like(mean_activation),
        to_rho.astype(jnp.result_type(rho)),
        to_beta.astype(jnp.result_type(beta)),
    )


_kl_penalty.defvjp(_kl_penalty_fwd, _kl_penalty_bwd)

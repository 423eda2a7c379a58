"""The jump at a threshold, and the derivatives that stand in for its own through a kernel (straight-through)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models.base import Codes, Scalar
from sae_jax.models.linear import widened


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def jump(
    pre_activations: Codes, threshold: Float[Array, " d_hidden"], bandwidth: Scalar, to_input: bool = False
) -> tuple[Float[Array, "batch d_hidden"], Float[Array, "batch d_hidden"]]:
    """Codes z 1[z > theta] and gates H(z - theta), as 0 and 1.

    With the rectangle K(u) = 1[|u| < 1/2] and the bandwidth eps,

        df/dz = 1[z > theta],  df/dtheta = -(theta / eps) K((z - theta) / eps)
        dH/dz = 0,             dH/dtheta = -(1 / eps) K((z - theta) / eps)

    and where the kernel leads to the input too, df/dz has theta / eps K more, and dH/dz 1 / eps K.

    Args:
        pre_activations: z, [batch, d_hidden].
        threshold: theta, [d_hidden], >= 0.
        bandwidth: eps, > 0.
        to_input: whether the kernel leads to the input too.

    Source: Rajamanoharan et al. 2024b, "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
    autoencoders", equations 11 and 12; Anthropic, "Circuits updates", January 2025 (to_input).
    """
    z = jnp.asarray(pre_activations)
    on = z > threshold[None]
    # Gates are summed, which few bits would not bear.
    return jnp.where(on, z, 0), widened(on.astype(z.dtype))


def _jump_fwd(
    pre_activations: Codes, threshold: Array, bandwidth: Scalar, to_input: bool
) -> tuple[tuple[Array, Array], Any]:
    return jump(pre_activations, threshold, bandwidth, to_input), (pre_activations, threshold, bandwidth)


def _jump_bwd(to_input: bool, residuals: Any, cotangents: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    (z, threshold, bandwidth), (to_codes, to_gates) = residuals, cotangents
    at_jump = kernel(z - threshold[None], bandwidth) * (threshold[None] * to_codes + to_gates)
    to_z = jnp.where(z > threshold[None], to_codes, 0) + (at_jump if to_input else 0)
    return to_z.astype(z.dtype), -jnp.sum(at_jump, axis=0), jnp.zeros_like(jnp.asarray(bandwidth))


jump.defvjp(_jump_fwd, _jump_bwd)


def kernel(distance: Array, bandwidth: Scalar) -> Array:
    """The rectangle of area 1: 1 / eps where |distance| < eps / 2, else 0."""
    return (jnp.abs(distance) < bandwidth / 2).astype(distance.dtype) / bandwidth

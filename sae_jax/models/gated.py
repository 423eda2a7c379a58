"""Gates that decide which units fire, and magnitudes that say how strongly, of one shared product.

    pi = (x - bd) We^T + b_gate,  f = 1[pi > 0] relu(exp(r_mag) (x - bd) We^T + b_mag)
    loss = mean ||x - x_hat(f)||^2 + l1 mean_i sum_j relu(pi_ij) + mean ||x - x_hat_frozen(relu(pi))||^2

Source: Rajamanoharan et al. 2024a, "Improving dictionary learning with gated sparse autoencoders", equations 5 to 8.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sae_jax.models import dictionary, dictionary_loss, relu, transcoder
from sae_jax.models.base import Batch, Key, Parameter, Params, Step, Term
from sae_jax.models.dictionary_memory import Memory, Seen
from sae_jax.models.linear import product
from sae_jax.settings import TRUE_OR_FALSE, Unread, one_of, static

# With relu's, gates would be 4% below a target of 6 after the 4,000 steps of the default frontier.
GAIN = 0.006


@struct.dataclass
class Settings(relu.Settings):
    """Settings of gated dictionaries."""

    UNREAD: ClassVar[Unread] = relu.Settings.UNREAD
    rows: str = static("unit", one_of(("unit", "free")), "decoder rows: held at norm 1, or of any norm")
    l1_weights: str = static("plain", one_of(("plain", "norms")), "what gates weigh in l1: 1, or their rows' norms")
    auxiliary_decoder: bool = static(
        False, TRUE_OR_FALSE, "the auxiliary term trains the decoder too, as in SAELens; the paper's is frozen"
    )


def init(key: Key, d_in: int, s: Settings) -> Params:
    """As every dictionary, with the gates' bias and the logarithm of the magnitudes' scale, both 0."""
    zeros = jnp.zeros(s.d_hidden, jnp.float32)
    return dictionary.init(key, d_in, s) | {"gate_bias": zeros, "log_magnitude": zeros}


def shared_product(params: Params, x: Batch, s: Settings) -> Array:
    """(x - bd) We^T, [batch, d_hidden]."""
    return product(dictionary.centred(params, x, s).T, params["encoder_weight"].T, s.products, True)


def gates_and_codes(params: Params, shared: Array) -> tuple[Array, Array]:
    """(relu(pi), f), both [batch, d_hidden], of the shared product; encoder_bias is b_mag."""
    gates = jax.nn.relu(shared + params["gate_bias"][None])
    magnitudes = jax.nn.relu(jnp.exp(params["log_magnitude"])[None] * shared + params["encoder_bias"][None])
    return gates, jnp.where(gates > 0, magnitudes, 0)


def encode(params: Params, x: Batch, s: Settings) -> Float[Array, "batch d_hidden"]:
    """f: magnitudes where gates are open."""
    return gates_and_codes(params, shared_product(params, x, s))[1]


def loss(params: Params, state: Memory | None, step: Step, s: Settings) -> tuple[dict[str, Array], Seen]:
    """The terms of the loss, and what is seen of the codes."""
    shared = dictionary.stored(shared_product(params, step.x, s), s)
    # Else differentiation would hold the product in float32, too.
    made = gates_and_codes if s.activation_dtype == "float32" else jax.checkpoint(gates_and_codes)
    gates, codes = dictionary.stored(made(params, shared), s)
    # Help for dead units is for gates that are closed, too.
    pi = dictionary.stored(shared + params["gate_bias"][None], s)
    values, seen = dictionary_loss.shared_loss(params, state, step, s, pi, codes)
    weight = relu.steered(state, s.l1 * step.ramp(s.l1_warmup), s)
    decoder = params if s.auxiliary_decoder else jax.lax.stop_gradient(params)
    rebuilt = dictionary.decode(decoder, gates, s)
    target = transcoder.left_to_codes(params, step, s).target
    return values | {
        "l1": weight * relu.l1_norm(params, gates, s),
        "gates": jnp.mean(jnp.sum(jnp.square(target - rebuilt), axis=1)),
    }, seen


def terms(s: Settings) -> dict[str, Term]:
    """The terms of `loss`, in its order."""
    return dictionary_loss.shared_terms(s) | {
        "l1": Term("l1 * mean sum_j relu(pi_j)", dictionary_loss.squares(s)),
        "gates": Term("error of what the gates alone reconstruct", dictionary_loss.squares(s)),
    }


def gradient(params: Params, to_params: Params, s: Settings) -> Params:
    """Without what is frozen: of a frozen encoder the gates and magnitudes too."""
    changed = dictionary.gradient(params, to_params, s)
    still = ("gate_bias", "log_magnitude") if s.frozen == "encoder" else ()
    return changed | {name: jnp.zeros_like(params[name]) for name in still}


GATED = relu.RELU._replace(
    name="gated",
    Settings=Settings,
    parameters=lambda s: (
        dictionary.parameters(s)
        | {
            "encoder_bias": Parameter(("unit",), "magnitudes' bias b_mag"),
            "gate_bias": Parameter(("unit",), "gates' bias b_gate"),
            "log_magnitude": Parameter(("unit",), "logarithm of the magnitudes' scale r_mag"),
        }
    ),
    terms=terms,
    init=init,
    encode=encode,
    loss=loss,
    update=functools.partial(relu.update_memory, gain=GAIN),
    exact=lambda s: dictionary.EXACT | {"target_l0": None, "auxiliary_decoder": True},
    gradient=gradient,
)

"""Dictionaries that make other activations of their inputs, such as an MLP's outputs of what goes into it.

    z = x We^T + be,  f = codes of z,  y_hat = f Wd + bd,  and + x S^T where there is a skip

Nothing is subtracted of x, since bd lies among the outputs. Any dictionary with an encoder of its own is one where its
setting outputs is above 0: rows of samples are then [x | y], and losses and measures are of y_hat against y.

Source: Dunefsky et al. 2024, "Transcoders find interpretable LLM feature circuits"; Paulo et al. 2025, "Transcoders
beat sparse autoencoders for interpretability" (skip).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sae_jax.models import rows
from sae_jax.models.base import Batch, Key, Parameter, Params, Scalar, Step
from sae_jax.models.linear import product
from sae_jax.settings import UserError

DECODER = {
    "decoder_weight": Parameter(("unit", "target"), "decoder rows Wd, among the targets"),
    "decoder_bias": Parameter(("target",), "decoder bias bd, among the targets"),
}
SKIP = {"skip_weight": Parameter(("target", "input"), "skip weight S")}


def parameters(shared: dict[str, Parameter], s: Any) -> dict[str, Parameter]:
    """What a dictionary holds, its decoder among the targets where it has outputs."""
    return shared | DECODER | (SKIP if s.skip else {}) if s.outputs else shared


def init(key: Key, d_in: int, s: Any, norm: Scalar) -> Params:
    """Encoder rows of norm 1 and decoder rows, each in random directions of their own, the others 0.

    Args:
        key: PRNG key; lanes of one seed receive the same one.
        d_in: numbers of x and y together.
        s: outputs, skip and d_hidden are read.
        norm: of decoder rows.
    """
    width = d_in - s.outputs
    read = rows.directions(jax.random.fold_in(key, 1), width, s.d_hidden, 1.0)
    written = rows.directions(key, s.outputs, s.d_hidden, norm)
    params = read | {name: written[name] for name in DECODER}
    return params | ({"skip_weight": jnp.zeros((s.outputs, width), jnp.float32)} if s.skip else {})


def bypass(params: Params, x: Batch, s: Any) -> Float[Array, "batch outputs"] | None:
    """x S^T, [batch, outputs]; None without a skip."""
    if not (s.outputs and s.skip):
        return None
    return product(jnp.asarray(x).T, params["skip_weight"].T, s.products, True)


def left_to_codes(params: Params, step: Step, s: Any) -> Step:
    """A step whose target is what the codes are to reconstruct: what the skip makes of x is taken out of it."""
    skipped = bypass(params, step.x, s)
    return step if skipped is None else step._replace(target=step.target - skipped)


def check(s: Any) -> None:
    """Refuse a start or a help that lie in one space of inputs and targets.

    Raises:
        UserError: there is such.
    """
    if not s.outputs:
        return
    for name, wrong, why, fix in (
        ("encoder_start", "decoder", "decoder rows lie among the targets, and encoder rows among the inputs", "unit"),
        ("dead_units", "resampling", "new rows along a sample would lie among inputs and targets at once", "auxk"),
        ("centre", "median", "the median of a row of both is no target's", "mean"),
    ):
        if getattr(s, name) == wrong:
            raise UserError(f"{name} {wrong} is of no transcoder, since {why}: got outputs {s.outputs}; use {fix}")

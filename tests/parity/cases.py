"""The cases: an architecture of the library with its options, and what stands for it in sae_jax."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

FIXTURES = Path(__file__).parent / "fixtures"
D_IN, D_SAE, BATCH, STEPS = 6, 10, 8, 50
# Of transcoders, which the library reads and writes, but does not train.
D_OUT = 4
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
LEARNING_RATE = 0.01
# Steps without firing after which the library takes a unit for dead where it has been silent for more than them.
WINDOW = 3
# Units whose pre-activations start small and negative.
SILENT = (8, 9)


class Case(NamedTuple):
    """One comparison.

    Attributes:
        name: of its file.
        architecture: the library's name of it.
        options: of the library's training config.
        preset: ours.
        settings: beside the preset.
        dead: units that the one step takes for dead.
    """

    name: str
    architecture: str
    options: dict[str, Any]
    preset: str
    settings: dict[str, Any]
    dead: tuple[int, ...] = ()


# More dead units than d_in / 2, so that AuxK chooses among them, and fewer, so that it is scaled down.
MANY, FEW = (2, 5, 8, 9), SILENT
QUADRATIC = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 3.0, "l0_coefficient": 0.1}
TANH = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True, "l0_coefficient": 0.2}
LIFTED = {"jumprelu_bandwidth": 0.4, "pre_act_loss_coefficient": 0.05}
LIFTED_OURS = {"bandwidth": 0.4, "dead_units": "pre_activation_dead", "pre_activation": 0.05}

CASES = (
    Case("standard", "standard", {"l1_coefficient": 0.3}, "saelens-standard", {"l1": 0.3}),
    Case("gated", "gated", {"l1_coefficient": 0.3}, "saelens-gated", {"l1": 0.3}),
    Case(
        "topk", "topk", {"k": 3, "rescale_acts_by_decoder_norm": False}, "saelens-topk", {"k": 3, "rescale": False}, FEW
    ),
    Case("topk_rescaled", "topk", {"k": 3}, "saelens-topk", {"k": 3}, MANY),
    Case("abstopk", "abstopk", {"k": 3}, "saelens-abstopk", {"k": 3}, MANY),
    Case("batchtopk", "batchtopk", {"k": 2.5}, "saelens-batchtopk", {"k": 2.5}, MANY),
    Case(
        "matryoshka_batchtopk",
        "matryoshka_batchtopk",
        {"k": 2.5, "matryoshka_widths": [3, 6, 10]},
        "saelens-matryoshka",
        {"k": 2.5, "prefixes": "3,6"},
        MANY,
    ),
    Case(
        "jumprelu_step",
        "jumprelu",
        {"l0_coefficient": 0.2, **LIFTED},
        "saelens-jumprelu",
        {"l0": 0.2, **LIFTED_OURS},
        FEW,
    ),
    Case(
        "jumprelu_tanh",
        "jumprelu",
        TANH | LIFTED,
        "saelens-jumprelu",
        {"penalty": "tanh", "input_gradient": True, "l0": 0.2, **LIFTED_OURS},
        FEW,
    ),
    Case(
        "jumprelu_quadratic",
        "jumprelu",
        QUADRATIC | {"jumprelu_bandwidth": 0.4},
        "saelens-jumprelu",
        {"penalty": "quadratic", "target_l0": 3.0, "l0": 0.1, "bandwidth": 0.4},
    ),
    Case(
        "matching_pursuit",
        "matching_pursuit",
        {"max_iterations": 3, "residual_threshold": 0.0, "stop_on_duplicate_support": False},
        "saelens-matching-pursuit",
        {"k": 3, "residual_threshold": 0.0, "stop_at_repeat": False},
    ),
    Case(
        "matching_pursuit_ends",
        "matching_pursuit",
        {"residual_threshold": 0.5},
        "saelens-matching-pursuit",
        {"k": D_IN, "residual_threshold": 0.5},
    ),
)

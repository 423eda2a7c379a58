"""Settings by the name of a paper or of a library: what was published, in the terms of sae_jax.

A preset states what its source does otherwise than the defaults: the form of the loss, where parameters start, and the
schedules, not the sizes that depend on the data (units, weights of penalties, active units); a schedule of k alone
comes with k and the units.
What has no counterpart here is named beside it.
"""

from __future__ import annotations

from typing import Any

from sae_jax.settings import unknown

# Every training of SAELens 6.54.12: Adam of a constant rate, gradients clipped at a global norm of 1, batches of 4096,
# a unit dead after more than 1000 steps without firing, rows of both layers that start at norm .1. Its warm-ups of
# penalties, off by default, are a step behind ours: they start at 0.
_SAELENS: dict[str, Any] = {
    "learning_rate": 3e-4,
    "warmup": 0.0,
    "final_learning_rate": 1.0,
    "clip_norm": 1.0,
    "batch_size": 4096,
    "rows": "free",
    "start_norm": 0.1,
    "encoder_start": "decoder",
}
_L1: dict[str, Any] = {"l1": 1.0, "l1_weights": "norms", "l1_warmup": 0.0}
_TOPK: dict[str, Any] = {
    "rescale": True,
    "k_warmup": 0.0,
    "dead_units": "auxk",
    "aux": 1.0,
    "aux_form": "full",
    "dead_after": 1001 * 4096,
}
_BATCH_TOPK: dict[str, Any] = {**_TOPK, "threshold_decay": 0.99, "threshold_bias": "kept"}
# Dead units in Gao et al. 2024, section 2.4: 10 million tokens without firing.
_AUXK: dict[str, Any] = {"dead_units": "auxk", "aux": 1 / 32, "dead_after": 10_000_000}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    # Makhzani and Frey 2013, "k-sparse autoencoders", on MNIST: k falls from 100 to 25, and a trained lane keeps thrice
    # as many units. Batches, start and optimizer are those of the authors' code.
    "makhzani": (
        "classic",
        {
            **{"d_hidden": 1000, "k": 25, "k_start": 100, "k_warmup": 0.5, "k_factor": 3.0},
            **{"activation": "linear", "output": "linear", "tied": True, "start_std": 0.01},
            **{"reconstruction_loss": "half_squared_error", "beta": 0.0, "weight_decay": 0.0, "batch_size": 128},
            **{"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01, "warmup": 0.0, "final_learning_rate": 1.0},
        },
    ),
    # Bricken et al. 2023, "Towards monosemanticity": beside rows of norm 1, L1 is plain. Units are dead after 12,500
    # steps of 8192 samples, and begin anew four times, from the samples of one batch here.
    "bricken": (
        "relu",
        {"rows": "unit", "centre": "median", "dead_units": "resampling", "dead_after": 12_500 * 8192},
    ),
    # Anthropic, "Circuits updates", April 2024, for inputs of mean norm sqrt(d_in). Its rate falls over the last fifth.
    "anthropic-april": (
        "relu",
        {
            "rows": "free",
            "l1_weights": "norms",
            "start_norm": 0.1,
            "encoder_start": "decoder",
            "l1": 5.0,
            "l1_warmup": 0.05,
            "clip_norm": 1.0,
            "learning_rate": 5e-5,
            "warmup": 0.0,
        },
    ),
    # Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2 and appendix A.
    "gao": ("topk", {"rows": "unit", "centre": "median", "k_warmup": 0.0, **_AUXK}),
    # Bussmann, Leask and Nanda 2024, "BatchTopK sparse autoencoders".
    "bussmann": ("batch_topk", {"rows": "unit", "k_warmup": 0.0, "learning_rate": 3e-4, "batch_size": 4096, **_AUXK}),
    # Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders": of 65,536 units, the
    # first 2048, 6144, 14,336, 30,720 and all.
    "matryoshka": (
        "matryoshka",
        {
            "rows": "unit",
            "prefixes": "1/32,3/32,7/32,15/32",
            "k_warmup": 0.0,
            "learning_rate": 3e-4,
            "batch_size": 4096,
            **_AUXK,
        },
    ),
    # Rajamanoharan et al. 2024a, "Improving dictionary learning with gated sparse autoencoders".
    "rajamanoharan-gated": ("gated", {"rows": "unit", "auxiliary_decoder": False}),
    # Rajamanoharan et al. 2024b, "Jumping ahead". It trains the thresholds' logarithms; here the thresholds themselves.
    "rajamanoharan-jumprelu": (
        "jumprelu",
        {"penalty": "step", "rows": "unit", "bandwidth": 0.001, "threshold_start": 0.001, "learning_rate": 7e-5},
    ),
    # Anthropic, "Circuits updates", January 2025, for inputs of mean norm sqrt(d_in). Its rate falls in the last fifth.
    "anthropic-january": (
        "jumprelu",
        {
            "penalty": "tanh",
            "rows": "free",
            "input_gradient": True,
            "bandwidth": 2.0,
            "threshold_start": 0.1,
            "l0_warmup": 1.0,
            "dead_units": "pre_activation",
            "pre_activation": 3e-6,
        },
    ),
    # SAELens 6.54.12, with the defaults of its training configs: one name for each architecture.
    "saelens-standard": ("relu", _SAELENS | _L1),
    "saelens-gated": ("gated", _SAELENS | _L1 | {"auxiliary_decoder": True}),
    "saelens-topk": ("topk", _SAELENS | _TOPK),
    "saelens-abstopk": ("abs_topk", _SAELENS | _TOPK),
    # Its batch keeps int(B k) codes, ours round(B k).
    "saelens-batchtopk": ("batch_topk", _SAELENS | _BATCH_TOPK),
    # Prefixes are to be chosen. Its use_matryoshka_aux_loss, AuxK by levels, is off by default and not here.
    "saelens-matryoshka": ("matryoshka", _SAELENS | _BATCH_TOPK | {"prefix_errors": "sum"}),
    # Its pre_act_loss_coefficient is dead_units pre_activation_dead, off by default, with dead_after 1001 batches.
    "saelens-jumprelu": (
        "jumprelu",
        _SAELENS
        | {"penalty": "step", "l0": 1.0, "l0_warmup": 0.0, "threshold_start": 0.01, "bandwidth": 0.05}
        | {"input_gradient": False},
    ),
    # Its rows are of norm 1 only at the start; k, its max_iterations, is d_in unless it is given.
    "saelens-matching-pursuit": (
        "matching_pursuit",
        {name: value for name, value in _SAELENS.items() if name != "encoder_start"}
        | {"start_norm": 1.0, "residual_threshold": 0.01, "stop_at_repeat": True},
    ),
}


def preset(name: str) -> tuple[str, dict[str, Any]]:
    """The model and the settings of a preset, of the model and of the training.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    model, settings = PRESETS[name]
    return model, dict(settings)

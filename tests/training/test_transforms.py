"""One step of every model under jit, vmap, pmap and shard_map: a split batch is one large batch."""

import jax
import numpy as np
import pytest

from sae_jax.data.statistics import statistics_of
from sae_jax.models import CLASSIC, MODELS
from sae_jax.models.presets import PRESETS, preset
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state
from tests.example_model import EXAMPLE
from tests.transforms import NOISE_KEY, STEP, assert_close, with_pmap, with_shard_map, with_vmap

TRAINING = {"d_hidden": 7, "batch_size": 32, "steps": 100, "learning_rate": 0.01, "warmup": 0.2, "noise": 0.3}
KL = {"rho": 0.05, "beta": 2.0, "weight_decay": 1e-3, "beta_warmup": 0.3}
# Of every model, settings in which each of its terms is on.
VARIANTS = {
    "classic, ema": (CLASSIC, KL | {"estimator": "ema"}),
    "classic, batch": (CLASSIC, KL | {"estimator": "batch"}),
    "classic, every term": (CLASSIC, KL | {"l1": 0.1, "contractive": 0.1, "k": 4, "ema_start": "zero"}),
    "classic, spine": (
        CLASSIC,
        KL | {"activation": "capped_relu", "partial_sparsity": 0.5, "average_sparsity": 2.0, "average_target": 0.01},
    ),
    "classic, winner-take-all": (CLASSIC, KL | {"activation": "relu", "output": "linear", "lifetime": 0.1}),
    "example": (EXAMPLE, {"sparsity": 0.3}),
}
AUXK = {"dead_units": "auxk", "dead_after": 40}
LIFTED = {"dead_units": "pre_activation", "pre_activation": 0.1, "prefixes": "1/4,1/2"}
DICTIONARIES = {
    "relu": (MODELS["relu"], AUXK | {"l1": 0.1}),
    "relu, resampled": (
        MODELS["relu"],
        {"l1": 0.5, "dead_units": "resampling", "dead_after": 40, "resample_times": 1, "resample_span": 0.05},
    ),
    "relu, steered": (MODELS["relu"], LIFTED | {"target_l0": 2.0, "rows": "unit"}),
    "topk": (MODELS["topk"], AUXK | {"k": 2, "prefixes": "drawn:3"}),
    "abs_topk": (MODELS["abs_topk"], {"k": 2, "k_warmup": 0.5, "frozen": "soft"}),
    "batch_topk": (MODELS["batch_topk"], AUXK | {"k": 2.5, "prefixes": "2,4", "target_rate": 0.3}),
    "matryoshka": (MODELS["matryoshka"], {"k": 2.5, "prefix_errors": "sum"}),
    "jumprelu": (MODELS["jumprelu"], LIFTED | {"bandwidth": 0.5, "target_rate": 0.1}),
    "jumprelu, target": (MODELS["jumprelu"], {"bandwidth": 0.5, "target_l0": 2.0}),
    "jumprelu, tanh": (MODELS["jumprelu"], {"bandwidth": 0.5, "penalty": "tanh", "input_gradient": True}),
    "jumprelu, quadratic": (MODELS["jumprelu"], {"bandwidth": 0.5, "penalty": "quadratic", "target_l0": 2.0}),
    "gated": (MODELS["gated"], AUXK | {"l1": 0.1}),
    "transcoder": (MODELS["relu"], AUXK | {"l1": 0.1, "outputs": 6, "skip": True}),
    "transcoder, jumprelu": (MODELS["jumprelu"], {"bandwidth": 0.5, "target_l0": 2.0, "outputs": 7, "rows": "unit"}),
    "matching_pursuit": (MODELS["matching_pursuit"], {"k": 2, "frozen": "decoder"}),
}
# What presets hold for larger dictionaries and longer trainings, in sizes in which every term of theirs counts here.
FEW, DEAD = {"k": 2}, {"dead_after": 40}
SMALL = {
    "makhzani": FEW | {"k_start": 5},
    "bricken": DEAD | {"resample_times": 1, "resample_span": 0.05},
    "gao": FEW | DEAD,
    "bussmann": FEW | DEAD,
    "matryoshka": FEW | DEAD | {"d_hidden": 32},  # Room for its five prefixes.
    "rajamanoharan-jumprelu": {"bandwidth": 0.5},
    "anthropic-january": {"pre_activation": 0.1},
    "saelens-topk": FEW | DEAD,
    "saelens-abstopk": FEW | DEAD,
    "saelens-batchtopk": FEW | DEAD,
    "saelens-matryoshka": FEW | DEAD | {"prefixes": "2,4"},
    "saelens-jumprelu": {"bandwidth": 0.5},
    "saelens-matching-pursuit": {"k": 4, "residual_threshold": 1.0},  # Which some samples fall below.
}
OF_PRESETS = {
    f"preset {name}": (MODELS[model], values | {"d_hidden": 7, "batch_size": 32} | SMALL.get(name, {}))
    for name, (model, values) in ((name, preset(name)) for name in PRESETS)
}
EVERY = {**VARIANTS, **DICTIONARIES, **OF_PRESETS}
RUNS = [("adam", "none"), ("adam", "masking"), ("sgd", "gaussian")]
CASES = [
    *((variant, *run) for variant in VARIANTS for run in RUNS),
    *((name, *RUNS[0]) for name in DICTIONARIES),
    *((name, values.get("optimizer", "adam"), "none") for name, (_, values) in OF_PRESETS.items()),
]


def test_every_model_is_among_the_variants():
    assert {model.name for model, _ in {**VARIANTS, **DICTIONARIES}.values()} >= set(MODELS)


@pytest.mark.parametrize("split", [with_vmap, with_pmap, with_shard_map])
@pytest.mark.parametrize(("variant", "optimizer", "corruption"), CASES)
def test_a_split_batch_gives_what_one_large_batch_gives(samples, split, variant, optimizer, corruption):
    model, values = EVERY[variant]
    settings = lane_settings(model, **TRAINING | values | {"optimizer": optimizer, "corruption": corruption})
    state = init_state(jax.random.key(0), settings, 16, statistics_of(samples, model.statistics(settings.model)))
    if values.get("centre") == "median":
        # Every unit fires on both sides of it: one that does not is there to be helped.
        state.params["encoder_bias"] = state.params["encoder_bias"].at[0].set(-2.0)
    # A few steps in, rho_hat and the moments are no longer those of the start.
    for part in np.split(samples[128:256], 4):
        state, _ = STEP(settings, state, part, noise_key=NOISE_KEY)
    whole = STEP(settings, state, samples[:128], noise_key=NOISE_KEY)
    # The classic model computes terms of weight 0, too.
    assert model is CLASSIC or all(float(value) != 0 for value in whole[1].values())
    parts = split(settings, state, samples[:128])
    for device in range(4):
        assert_close(jax.tree.map(lambda leaf, d=device: leaf[d], parts), whole, rtol=1e-4, atol=3e-7)

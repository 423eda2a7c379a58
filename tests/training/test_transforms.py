"""One step of every model under jit, vmap, pmap and shard_map: a split batch is one large batch."""

import jax
import numpy as np
import pytest

from sae_jax.models import CLASSIC, MODELS
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
    "example": (EXAMPLE, {"sparsity": 0.3}),
    **{name: (model, {}) for name, model in MODELS.items() if model is not CLASSIC},
}


@pytest.mark.parametrize("split", [with_vmap, with_pmap, with_shard_map])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("optimizer", "corruption"), [("adam", "none"), ("adam", "masking"), ("sgd", "gaussian")])
def test_a_split_batch_gives_what_one_large_batch_gives(samples, split, variant, optimizer, corruption):
    model, values = VARIANTS[variant]
    settings = lane_settings(model, **TRAINING | values, optimizer=optimizer, corruption=corruption)
    state = init_state(jax.random.key(0), settings, 16)
    # A few steps in, rho_hat and the moments are no longer those of the start.
    for part in np.split(samples[128:256], 4):
        state, _ = STEP(settings, state, part, noise_key=NOISE_KEY)
    whole = STEP(settings, state, samples[:128], noise_key=NOISE_KEY)
    parts = split(settings, state, samples[:128])
    for device in range(4):
        assert_close(jax.tree.map(lambda leaf, d=device: leaf[d], parts), whole, rtol=1e-4, atol=3e-7)

"""Sparse autoencoders in JAX: a whole ablation study is one program."""

from sae_jax.autoencoder import decode, encode, init
from sae_jax.batches import batch_indices
from sae_jax.config import Config, DataConfig
from sae_jax.data import Data, as_data, load
from sae_jax.fitting import fit
from sae_jax.losses import objective
from sae_jax.metrics import evaluate
from sae_jax.penalties import kl_divergence, kl_penalty
from sae_jax.settings import UserError
from sae_jax.sparsity import SparsityState
from sae_jax.sweeps import sweep
from sae_jax.training import TrainState, init_state, keys_of, train_step
from sae_jax.types import Hyperparameters, Params

__all__ = [
    "Config",
    "Data",
    "DataConfig",
    "Hyperparameters",
    "Params",
    "SparsityState",
    "TrainState",
    "UserError",
    "as_data",
    "batch_indices",
    "decode",
    "encode",
    "evaluate",
    "fit",
    "init",
    "init_state",
    "keys_of",
    "kl_divergence",
    "kl_penalty",
    "load",
    "objective",
    "sweep",
    "train_step",
]

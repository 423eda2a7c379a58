"""Sparse autoencoders in JAX: a whole ablation study is one program."""

from sae_jax.data import Data, as_data, load
from sae_jax.data.batches import batch_indices
from sae_jax.data.config import DataConfig
from sae_jax.models.autoencoder import decode, encode, init
from sae_jax.models.losses import objective
from sae_jax.models.memory import SparsityState
from sae_jax.models.penalties import kl_divergence, kl_penalty
from sae_jax.models.types import Hyperparameters, Params
from sae_jax.settings import UserError
from sae_jax.sweeps.sweep import sweep
from sae_jax.training.config import Config
from sae_jax.training.evaluation import evaluate
from sae_jax.training.lane import fit
from sae_jax.training.step import TrainState, init_state, keys_of, train_step

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

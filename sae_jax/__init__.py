"""Sparse autoencoders in JAX: a whole ablation study is one program."""

from sae_jax.data import Data, DataConfig, as_data, load
from sae_jax.data.batches import batch_indices
from sae_jax.models import CLASSIC, MODELS, Measure, Model, Parameter, Step, Term
from sae_jax.models.kl import kl_divergence, kl_penalty
from sae_jax.models.memory import SparsityState
from sae_jax.settings import UserError
from sae_jax.sweeps.sweep import sweep
from sae_jax.training.config import LaneSettings, lane_settings
from sae_jax.training.evaluation import decode, encode, evaluate
from sae_jax.training.lane import fit
from sae_jax.training.step import TrainState, init_state, keys_of, train_step

__all__ = [
    "CLASSIC",
    "MODELS",
    "Data",
    "DataConfig",
    "LaneSettings",
    "Measure",
    "Model",
    "Parameter",
    "SparsityState",
    "Step",
    "Term",
    "TrainState",
    "UserError",
    "as_data",
    "batch_indices",
    "decode",
    "encode",
    "evaluate",
    "fit",
    "init_state",
    "keys_of",
    "kl_divergence",
    "kl_penalty",
    "lane_settings",
    "load",
    "sweep",
    "train_step",
]

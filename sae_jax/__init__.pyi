# What the package exports, one line a name: read by type checkers, by editors, and by __init__.py when a name is first
# used. To export another name, add its line here.
from sae_jax import analysis as analysis
from sae_jax import commands as commands
from sae_jax import data as data
from sae_jax import models as models
from sae_jax import settings as settings
from sae_jax import storage as storage
from sae_jax import sweeps as sweeps
from sae_jax import training as training
from sae_jax.analysis import figures as figures
from sae_jax.analysis import tasks as tasks
from sae_jax.data import Data as Data
from sae_jax.data import as_data as as_data
from sae_jax.data import load as load
from sae_jax.data.batches import batch_indices as batch_indices
from sae_jax.data.config import DataConfig as DataConfig
from sae_jax.models.autoencoder import decode as decode
from sae_jax.models.autoencoder import encode as encode
from sae_jax.models.autoencoder import init as init
from sae_jax.models.losses import objective as objective
from sae_jax.models.memory import SparsityState as SparsityState
from sae_jax.models.penalties import kl_divergence as kl_divergence
from sae_jax.models.penalties import kl_penalty as kl_penalty
from sae_jax.models.types import Hyperparameters as Hyperparameters
from sae_jax.models.types import Params as Params
from sae_jax.settings import UserError as UserError
from sae_jax.storage import results as results
from sae_jax.sweeps.sweep import sweep as sweep
from sae_jax.training.config import Config as Config
from sae_jax.training.evaluation import evaluate as evaluate
from sae_jax.training.lane import fit as fit
from sae_jax.training.step import TrainState as TrainState
from sae_jax.training.step import init_state as init_state
from sae_jax.training.step import keys_of as keys_of
from sae_jax.training.step import train_step as train_step

__version__: str

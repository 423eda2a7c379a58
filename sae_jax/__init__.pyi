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
from sae_jax.models import CLASSIC as CLASSIC
from sae_jax.models import MODELS as MODELS
from sae_jax.models.base import Across as Across
from sae_jax.models.base import Measure as Measure
from sae_jax.models.base import Model as Model
from sae_jax.models.base import Parameter as Parameter
from sae_jax.models.base import Step as Step
from sae_jax.models.base import Term as Term
from sae_jax.models.kl import kl_divergence as kl_divergence
from sae_jax.models.kl import kl_penalty as kl_penalty
from sae_jax.models.memory import SparsityState as SparsityState
from sae_jax.settings import UserError as UserError
from sae_jax.storage import results as results
from sae_jax.sweeps.observers import Observer as Observer
from sae_jax.sweeps.sweep import sweep as sweep
from sae_jax.training.config import LaneSettings as LaneSettings
from sae_jax.training.config import lane_settings as lane_settings
from sae_jax.training.evaluation import decode as decode
from sae_jax.training.evaluation import encode as encode
from sae_jax.training.evaluation import evaluate as evaluate
from sae_jax.training.lane import fit as fit
from sae_jax.training.step import TrainState as TrainState
from sae_jax.training.step import init_state as init_state
from sae_jax.training.step import keys_of as keys_of
from sae_jax.training.step import train_step as train_step

__version__: str

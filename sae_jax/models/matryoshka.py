"""BatchTopK dictionaries whose first units reconstruct alone, nested prefixes of all of them.

    f as of BatchTopK,  loss = the mean over sizes m of  mean_i ||x_i - (sum_{j < m} f_ij Wd_j + bd)||^2

The first units learn what is common and general, and the others leave it to them.

Source: Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders"; the mean is that of
dictionary_learning, MatryoshkaBatchTopKTrainer.loss.
"""

from __future__ import annotations

from flax import struct

from sae_jax.models import batch_topk
from sae_jax.models.dictionary import PREFIXES
from sae_jax.settings import TEXT, static


@struct.dataclass
class Settings(batch_topk.Settings):
    """Settings of Matryoshka dictionaries: those of BatchTopK, with prefixes."""

    prefixes: str = static("1/16,1/8,1/4,1/2", TEXT, PREFIXES)


MATRYOSHKA = batch_topk.BATCH_TOPK._replace(name="matryoshka", Settings=Settings)

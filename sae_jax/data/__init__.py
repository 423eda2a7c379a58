"""Rows, wherever they come from: data sources behind one function, `load`.

config        DataConfig, the settings; arguments: of a source, NAME=VALUE,...
rows, samples   Rows, Data, and the way from one to the other; checks: of arrays; room: of memory; classes: trained on
batch_sources   what is read batch by batch from a function or a Grain dataset
normalise     by statistics of the training split
pairs, paired_shards   samples beside their targets, as rows of both
feed          batches as pure functions of a seed and a step; batches: the permutations that they are drawn by
corruption    noise on the encoder's inputs
patches, digits, tfds_images, files, table, layers, activations, superposition   one file a source
packages      where files of installed packages lie; shards, parquet: folders of rows; writing: of them
features      what a superposition is made of; sampling, draws: its samples; truth: what is known of them
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sae_jax.data import activations, digits, files, layers, patches, superposition, table, tfds_images
from sae_jax.data.batch_sources import as_stream
from sae_jax.data.config import OF_FILES, DataConfig
from sae_jax.data.normalise import Normalisation
from sae_jax.data.pairs import check_there
from sae_jax.data.rows import Rows
from sae_jax.data.samples import Data, as_data, prepare
from sae_jax.data.shards import open_shards
from sae_jax.data.truth import Truth
from sae_jax.settings import UserError, check_type, closest, unknown

# What reads the rows of a source: f(what follows the colon, config).
SOURCES: dict[str, Callable[[str, DataConfig], Rows]] = {
    "patches": patches.read,
    "digits": digits.read,
    "tfds": tfds_images.read,
    "images": files.read_images,
    "array": files.read_array,
    "activations": activations.read,
    "table": table.read,
    "layer": layers.read,
    "superposition": superposition.read,
}


# Reading less takes no time worth a line.
LARGE_FILE = 2**26


def read(config: DataConfig) -> Rows:
    """Read the data set that `config.dataset` names, neither split nor normalised; errors as those of `load`."""
    kind, _, argument = config.dataset.partition(":")
    if kind not in SOURCES and os.path.isfile(config.dataset):
        raise UserError(f"a file must follow its kind: got {config.dataset}; use array:{config.dataset}")
    if kind not in SOURCES:
        # The name of an image set alone is what people try first.
        near = closest(kind.replace("-", "_"), [*SOURCES, *tfds_images.WELL_KNOWN])
        if near in tfds_images.WELL_KNOWN:
            raise UserError(f"unknown dataset {kind}: did you mean tfds:{near}?")
        raise unknown("dataset", kind, SOURCES)
    check_there(config)
    return SOURCES[kind](argument, config)


def outputs_of(config: DataConfig) -> int:
    """How many numbers the targets of a data set have; 0 where it has none. Errors as those of `load`."""
    check_there(config)
    if not config.targets:
        return 0
    if config.dataset.partition(":")[0] == "array":
        targets = files.read(config.targets, f"array:{config.targets}")[0]
        return targets.shape[1] if targets.ndim == 2 else 0
    return open_shards(Path(config.targets)).width


def large_file(config: DataConfig) -> str | None:
    """What reading takes a while: a large file of the user's by name, with its size, in words; None where nothing."""
    kind, _, path = config.dataset.partition(":")
    if kind not in OF_FILES or not os.path.isfile(path):
        return None
    size = os.path.getsize(path)
    return f"{os.path.basename(path)}, {size / 2**30:,.1f} GiB" if size >= LARGE_FILE else None


def load(config: DataConfig, normalisation: Normalisation | None = None) -> Data:
    """Read, split and normalise the data set that `config.dataset` names.

    Args:
        config: dataset is a source's name, followed by a colon and a name or path where the source takes one.
        normalisation: what is done to the samples; None is what `config` says, by the statistics of training rows.

    Raises:
        UserError: the source is unknown, or what it reads is missing, empty, not numeric, not finite or too small.
    """
    check_type("config", config, DataConfig, "a DataConfig", "use DataConfig(dataset='digits'), or as_data")
    return prepare(read(config), config, normalisation)


__all__ = ["SOURCES", "Data", "DataConfig", "Normalisation", "Rows", "Truth", "as_data", "as_stream", "load", "read"]

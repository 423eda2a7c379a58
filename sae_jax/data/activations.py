"""Activations of another model, or whatever else lies in a folder of shards that may be larger than memory.

A batch is a function of the seed of the data and the step: every epoch has an order of all rows of its own. Grain's
threads read batches ahead of the training. All lanes share what is read once, whatever their seeds.

Grain's own shuffle, of one row after another, takes 20 us a row in Python; that of `batches` takes 20 ns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from sae_jax.data.batches import host_indices
from sae_jax.data.checks import class_numbers
from sae_jax.data.classes import classes_named
from sae_jax.data.config import DataConfig, shown
from sae_jax.data.feed import HOST_BLOCK_BYTES, Batches, from_host
from sae_jax.data.files import read as read_file
from sae_jax.data.normalise import Normalisation
from sae_jax.data.packages import imported
from sae_jax.data.paired_shards import InOrder, PairedShards, held_apart, open_pairs
from sae_jax.data.rows import Part, Rows
from sae_jax.data.shards import HELDOUT, LABELS, Shards, names_at
from sae_jax.settings import UserError

# Rows that statistics are taken of, and those that lanes are measured on; a folder may hold millions.
EXCERPT, MEASURED = 32_768, 8_192
# Numbers of an excerpt at most.
EXCERPT_SIZE = 2**26
THREADS, MOST_AHEAD = 2, 16
# Of a permutation of `batches`.
MOST_ROWS = 2**31
# Beside a seed: no epoch has this number, whose order of the rows would be drawn from the same.
SPLIT = 2**32 - 1
# Steps that nobody takes.
ENDLESS = 2**40


def read(argument: str, config: DataConfig) -> Rows:
    """The rows of a folder of shards: an excerpt, those held out, and the stream of batches.

    Those held out are rows of its folder heldout/ where there is one, else `config.heldout` of all rows, at random, and
    never more than are measured. names.txt and labels.npy beside the shards, a line and a number for each row in the
    shards' order, are what the rows are and their classes.

    Args:
        argument: the folder.
        config: targets, heldout, samples, classes and data_seed are read.

    Raises:
        UserError: Grain is not installed, or the folder does not hold what it must; a shard is named.
    """
    _grain()
    folder = Path(argument)
    if not argument:
        raise UserError("dataset activations needs a folder of shards: got none; use activations:DIR")
    shards = open_pairs(folder, config.targets)
    if shards.rows > MOST_ROWS:
        raise UserError(f"a folder must hold at most {MOST_ROWS} rows: got {shards.rows}; split it")
    rng = np.random.default_rng([config.data_seed, SPLIT])
    apart = folder / HELDOUT
    if held_apart(folder, config.targets):
        measured = open_pairs(apart, config.targets and os.path.join(config.targets, HELDOUT))
        if measured.width != shards.width:
            raise UserError(
                f"held-out rows must be as wide as the others: got {measured.width} and {shards.width} in "
                f"{shown(folder)}; write them anew"
            )
        held = _some(measured.rows, MEASURED, rng)
        trained = Training(shards.rows, np.zeros(0, int))
    else:
        apart, measured = folder, shards
        if shards.rows < 2:
            raise UserError(
                f"{shown(folder)} must hold at least 2 rows, to train on one and hold one out: got {shards.rows}; add "
                "some"
            )
        held = _some(shards.rows, min(max(1, round(config.heldout * shards.rows)), MEASURED), rng)
        trained = Training(shards.rows, held)
    labels, labels_apart = _labels(folder, shards), _labels(apart, measured)
    every = [Part(InOrder(shards), labels)]
    if apart != folder:
        every.append(Part(InOrder(measured), labels_apart))
    number = len(shards.shards)
    name = f"{shown(folder)}, {shards.rows:,} rows in {number} {'shard' if number == 1 else 'shards'}"
    classes = classes_named(config.classes, labels, labels_apart, name) if config.classes else []
    if labels is not None and classes:
        trained = trained.among(np.flatnonzero(np.isin(labels, classes)))
    if config.samples and config.samples < trained.number:
        trained = trained.limited(_some(trained.number, config.samples, rng))
    excerpt = trained.rows(_some(trained.number, max(1, min(EXCERPT, EXCERPT_SIZE // shards.width)), rng))
    return Rows(
        shards.read(excerpt),
        name,
        measured.read(held),
        labels=None if labels is None else labels[excerpt],
        heldout_labels=None if labels_apart is None else labels_apart[held],
        names=names_at(folder, shards.rows, excerpt),
        heldout_names=names_at(apart, measured.rows, held),
        normalize="length",
        digest=_digest(shards, measured),
        stream=from_host(_batches(shards, trained, config.data_seed), shards.width),
        classes=classes,
        outputs=shards.targets.width if isinstance(shards, PairedShards) else 0,
        every=tuple(every),
    )


class Training:
    """Which rows of a folder are trained on: all but those held out, or some of these.

    Args:
        number_of_all: rows of the folder.
        held: sorted numbers of those held out.
        chosen: sorted numbers of those trained on among all, where not all but the held are.
    """

    def __init__(self, number_of_all: int, held: Int[np.ndarray, " held"], chosen: np.ndarray | None = None) -> None:
        self._all, self._held, self._chosen = number_of_all, held, chosen
        # How many rows that are not held out lie before each that is.
        self._before = held - np.arange(len(held))

    @property
    def number(self) -> int:
        """How many there are."""
        return self._all - len(self._held) if self._chosen is None else len(self._chosen)

    def rows(self, places: Int[np.ndarray, " places"]) -> Int[np.ndarray, " places"]:
        """Numbers of the rows at some places among those trained on."""
        if self._chosen is not None:
            return np.asarray(self._chosen[places])
        return np.asarray(places + np.searchsorted(self._before, places, side="right"))

    def among(self, rows: Int[np.ndarray, " rows"]) -> Training:
        """Those of them that are among some rows, by sorted numbers."""
        return Training(self._all, self._held, np.setdiff1d(rows, self._held, assume_unique=True))

    def limited(self, places: Int[np.ndarray, " places"]) -> Training:
        """Those at some sorted places."""
        return Training(self._all, self._held, self.rows(places))


def _grain() -> Any:
    """Grain, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    return imported("grain", "a folder of shards")


def _some(number: int, most: int, rng: np.random.Generator) -> Int[np.ndarray, " some"]:
    """Sorted places of at most so many of a number of rows, at random."""
    if number <= most:
        return np.arange(number)
    return np.sort(rng.choice(number, most, replace=False, shuffle=False))


def _labels(folder: Path, shards: Shards | PairedShards) -> np.ndarray | None:
    path = folder / LABELS
    if not os.path.lexists(path):
        return None
    return class_numbers(read_file(str(path), f"array:{path}")[0], f"labels of {shown(path)}", shards.rows)


def _digest(*parts: Shards | PairedShards) -> str:
    """By what a folder is known again: names, sizes and kinds of its shards."""
    words = [[(one.path.name, one.rows, one.width, one.dtype.name) for one in part.shards] for part in parts]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _batches(shards: Shards | PairedShards, trained: Training, seed: int) -> Batches:
    """What reads the batches from a step on; an epoch leaves out what its last whole batch leaves over."""
    grain = _grain()

    def batches(first: int, batch_size: int, normalisation: Normalisation | None) -> Iterator[np.ndarray]:
        if batch_size > trained.number:
            raise UserError(
                f"batch_size must be at most the number of training samples: got {batch_size} of {trained.number}; "
                f"use {trained.number} or less"
            )

        def batch(step: int) -> np.ndarray:
            rows = shards.read(trained.rows(host_indices(seed, step, trained.number, batch_size)))
            return rows if normalisation is None else normalisation.apply(rows)

        ahead = int(np.clip(HOST_BLOCK_BYTES // (4 * batch_size * shards.width), 2, MOST_AHEAD))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=ahead)
        read: Iterator[np.ndarray] = iter(grain.MapDataset.range(first, ENDLESS).map(batch).to_iter_dataset(options))
        return read

    return batches

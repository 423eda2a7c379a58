"""What a data source returns, and the steps and checks that every source shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sae_jax.data.checks import as_array, check_fits, check_image_shape, checked, class_numbers, trainable
from sae_jax.data.classes import classes_named
from sae_jax.data.config import DataConfig
from sae_jax.data.feed import Feed, resident
from sae_jax.data.normalise import Normalisation
from sae_jax.data.pairs import beside, fitted
from sae_jax.data.room import SINGLE_BYTES, check_room, held_out
from sae_jax.data.rows import Rows
from sae_jax.data.truth import Truth, check_truth
from sae_jax.settings import UserError, check_type
from sae_jax.storage.arrays import aligned, pieces


@dataclasses.dataclass(frozen=True)
class Data:
    """Samples to train on and samples held out, float32, one row each.

    Attributes:
        train: [samples, d_in].
        heldout: [heldout, d_in]; never trained on.
        config: the settings that it was made by.
        description: one line for people.
        image_shape: (height, width) of a sample where it is an image.
        train_labels, heldout_labels: class numbers, [samples] and [heldout], where the source has them.
        left_out, left_out_labels: held-out samples of the classes that `config.classes` leaves out, where it does.
        stream: where training batches come from; None draws them from `train`, which is else an excerpt of them.
        heldout_names: what each held-out sample is, such as a token, in words; where the source says so.
        truth: the features that the samples are sums of, where they were made.
        normalisation: what was done to the samples; None where nothing is known of it.
        outputs: how many numbers of a row, its last, are targets that are made of the others; 0 where there are none.
        digest: of the file that they come from, where it is one of the user's or brings weights.
        warning: one line about what should be done otherwise with the samples; "" where nothing should.

    Raises:
        UserError: samples are not finite or too large, or arrays, labels and the image's sides do not fit together.
    """

    train: Float[np.ndarray, "samples d_in"]
    heldout: Float[np.ndarray, "heldout d_in"]
    config: DataConfig
    description: str
    image_shape: tuple[int, int] | None = None
    train_labels: Int[np.ndarray, " samples"] | None = None
    heldout_labels: Int[np.ndarray, " heldout"] | None = None
    left_out: Float[np.ndarray, "left_out d_in"] | None = None
    left_out_labels: Int[np.ndarray, " left_out"] | None = None
    stream: Feed | None = None
    heldout_names: tuple[str, ...] | None = None
    truth: Truth | None = None
    normalisation: Normalisation | None = None
    outputs: int = 0
    digest: str | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        check_type("config", self.config, DataConfig, "a DataConfig", "use DataConfig(dataset='array')")
        for split in ("train", "heldout", "left_out"):
            rows, labels = getattr(self, split), f"{split}_labels"
            if rows is None and split == "left_out":
                continue
            object.__setattr__(self, split, trainable(rows, split, self.train))
            if getattr(self, labels) is not None:
                object.__setattr__(self, labels, class_numbers(getattr(self, labels), labels, len(rows)))
        check_image_shape(self.image_shape, self.train.shape[1])
        if self.truth is not None:
            check_truth(self.truth, self.heldout)

    @property
    def reconstructed(self) -> Float[np.ndarray, "samples outputs"]:
        """What is to be reconstructed of the samples to train on: their targets, or themselves."""
        return self.train[:, -self.outputs :] if self.outputs else self.train

    @property
    def feed(self) -> Feed:
        """The source of training batches."""
        return self.stream or resident(self.train)

    @property
    def summary(self) -> list[float | str]:
        """By what the same samples are known again: counts, statistics of both splits, the file's digest.

        What is read from no file of the user's, and none of weights, has no digest.
        """
        numbers: list[float | str] = [float(size) for size in (*self.train.shape, len(self.heldout))]
        for split in (self.train, self.heldout):
            means, squares = np.empty(len(split)), np.empty(len(split))
            for index, part in pieces(split):
                means[index], squares[index] = part.mean(axis=1, dtype=float), np.mean(part.astype(float) ** 2, axis=1)
            place, variance = np.linspace(0, 1, len(split)), np.mean(squares) - np.mean(means) ** 2
            numbers += [
                float(np.mean(means)),
                float(np.sqrt(np.maximum(variance, 0.0))),
                float(place @ means) / len(split),
            ]
        return [*numbers, self.digest] if self.digest else numbers


def as_data(
    samples: np.ndarray,
    config: DataConfig = DataConfig(dataset="array"),  # noqa: B008
    name: str = "array",
    labels: np.ndarray | None = None,
    normalisation: Normalisation | None = None,
    targets: np.ndarray | None = None,
) -> Data:
    """Make Data of an array: checked, split at random by `config.data_seed`, normalised.

    Args:
        samples: [samples, features] of any real dtype.
        config: heldout, data_seed, classes, samples, normalize and subtract_mean are read.
        name: what the description calls it.
        labels: class numbers, [samples].
        normalisation: as in `prepare`.
        targets: what a transcoder makes of each sample, [samples, outputs].

    Raises:
        UserError: the array is empty, not 2-D, not numeric, not finite, or has too few rows to split; or the labels
            are no whole numbers, one for each sample, or the targets are of another number of rows.
    """
    check_type("config", config, DataConfig, "a DataConfig", "use DataConfig(dataset='array')")
    check_type("name", name, str, "text", "leave it out for array")
    samples = as_array(samples, "samples", "[samples, features]")
    check_room(samples, config)
    return prepare(array_rows(samples, name, labels, "samples", targets), config, normalisation)


def array_rows(
    samples: Any, name: str, labels: Any = None, noun: str = "", targets: Any = None, of_targets: str = "targets"
) -> Rows:
    """An array of samples as what a source reads, beside its targets; see `as_data`.

    Args:
        samples, name, labels, targets: as there.
        noun, of_targets: what messages call the samples, else by their name, and the targets.
    """
    samples = checked(samples, noun or name, ("samples", "features"))
    rows, outputs = (samples, 0) if targets is None else beside(samples, targets, of_targets)
    if labels is None:
        return Rows(rows, name, outputs=outputs)
    numbers = class_numbers(labels, f"labels of {noun or name}", len(samples))
    return Rows(rows, name, labels=numbers, outputs=outputs)


class Split(NamedTuple):
    """One of the two parts of a source: which rows of an array, and all class numbers and names of that array."""

    samples: np.ndarray
    places: Int[np.ndarray, " rows"]
    labels: np.ndarray | None
    names: Sequence[str] | None

    @property
    def classes(self) -> np.ndarray | None:
        """Class numbers of the rows, [rows]."""
        return None if self.labels is None else np.asarray(self.labels[self.places], np.int32)

    @property
    def words(self) -> tuple[str, ...] | None:
        """Names of the rows."""
        return None if self.names is None else tuple(self.names[place] for place in self.places)

    def where(self, chosen: np.ndarray | slice) -> Split:
        """The rows that are chosen, by booleans or a slice."""
        return self._replace(places=self.places[chosen])


def prepare(rows: Rows, config: DataConfig, normalisation: Normalisation | None = None) -> Data:
    """Split what a source has read, take the wanted classes, limit, normalise, describe.

    Args:
        rows: of the source.
        config: heldout, data_seed, classes, samples, normalize and subtract_mean are read.
        normalisation: what is done to the samples; None is what `config` says, by the statistics of training rows.

    Raises:
        UserError: `config.classes` names classes that the source does not have, there are too few rows to split, a
            stream of samples is to be normalised, or a value is too large to train on.
    """
    held = None if rows.heldout is None else as_array(rows.heldout, f"held-out samples of {rows.name}")
    rows = rows._replace(samples=as_array(rows.samples, f"samples of {rows.name}"), heldout=held)
    train, heldout = _split(rows, config)
    chosen = np.ones(len(train.places), bool), np.ones(len(heldout.places), bool)
    if config.classes:
        classes = rows.classes or classes_named(config.classes, train.classes, heldout.classes, rows.name)
        chosen = np.isin(np.asarray(train.classes), classes), np.isin(np.asarray(heldout.classes), classes)
    train = train.where(chosen[0]).where(slice(config.samples or None))
    rule = rows.normalize if config.normalize == "auto" else config.normalize
    subtract_sample_mean = config.subtract_mean == "patch" or (
        config.subtract_mean == "auto" and rows.image_shape is not None
    )
    trained_on = np.zeros(len(train.samples), bool)
    trained_on[train.places] = True
    # What is left out takes no part in the statistics.
    kinds = (Normalisation, type(None))
    check_type("normalisation", normalisation, kinds, "a Normalisation", "leave it out to fit one")
    if normalisation is None:
        words = _in_words(rule, subtract_sample_mean)
        normalisation = fitted(train.samples, trained_on, rule, subtract_sample_mean, rows.outputs)
    else:
        words = "normalised as those that training began with"
        _check_width(normalisation, rows)
    stream = rows.stream
    if stream is not None and not normalisation.is_identity:
        if stream.normalised is None:
            raise UserError(f"samples that are made must stay as they are: got {words}; use normalize none")
        stream = stream.normalised(normalisation)
    parts = [train, heldout.where(chosen[1]), *([heldout.where(~chosen[1])] if config.classes else [])]
    wanted = sum(len(part.places) for part in parts)
    check_fits(wanted, SINGLE_BYTES * wanted * rows.samples.shape[1])
    arrays = [_normalised(part, normalisation) for part in parts]
    shape, values = rows.image_shape, "features" if rows.truth is None else "inputs"
    of_shape = f"{shape[0]}x{shape[1]} pixels" if shape else f"{rows.samples.shape[1] - rows.outputs} {values}"
    of_shape += f" and {rows.outputs} of their targets" if rows.outputs else ""
    use = "to train on" if rows.stream is None else "as an excerpt of a stream"
    description = f"{rows.name}: {len(arrays[0])} samples of {of_shape} {use}, {len(arrays[1])} held out; {words}"
    left_out = parts[2].classes if config.classes else None
    return Data(
        train=arrays[0],
        heldout=arrays[1],
        config=config,
        description=f"{description}; classes {config.classes}" if config.classes else description,
        image_shape=shape,
        train_labels=train.classes,
        heldout_labels=parts[1].classes,
        left_out=arrays[2] if config.classes else None,
        left_out_labels=left_out,
        stream=stream,
        heldout_names=parts[1].words,
        truth=rows.truth,
        normalisation=normalisation,
        outputs=rows.outputs,
        digest=rows.digest,
        warning=rows.warning,
    )


def _check_width(normalisation: Normalisation, rows: Rows) -> None:
    if normalisation.centre.shape[-1:] not in ((), rows.samples.shape[1:]):
        raise UserError(
            f"samples must have the {normalisation.centre.shape[-1]} inputs that training began with: got "
            f"{rows.samples.shape[1]}; use samples of that width"
        )


def _in_words(rule: str, subtract_sample_mean: bool) -> str:
    if rule in ("none", "length"):
        return "as they are" if rule == "none" else "of mean length sqrt(inputs)"
    if rule in ("standardize", "centre"):
        return f"{rule} normalisation of every feature"
    return f"{rule} normalisation, {'patch' if subtract_sample_mean else 'global'} mean subtracted"


def _split(rows: Rows, config: DataConfig) -> tuple[Split, Split]:
    """Training and held-out rows: the source's own, or at random, the same for the same `config.data_seed`."""
    number = len(rows.samples)
    if rows.heldout is not None:
        heldout = Split(rows.heldout, np.arange(len(rows.heldout)), rows.heldout_labels, rows.heldout_names)
        return Split(rows.samples, np.arange(number), rows.labels, rows.names), heldout
    if number < 2:
        raise UserError(
            f"{rows.name} must hold at least 2 samples, to train on one and hold one out: got {number}; add some"
        )
    order = np.random.default_rng(config.data_seed).permutation(number)
    held = held_out(number, config)
    train, heldout = (Split(rows.samples, places, rows.labels, rows.names) for places in (order[held:], order[:held]))
    return train, heldout


def _normalised(part: Split, normalisation: Normalisation) -> Float[np.ndarray, "rows d_in"]:
    """Normalised rows of an array that is read once, in its own order."""
    result = aligned((len(part.places), part.samples.shape[1]))
    target = np.full(len(part.samples), -1)
    target[part.places] = np.arange(len(part.places))
    for index, piece in pieces(part.samples):
        to = target[index[0] if isinstance(index, tuple) else slice(None)]
        result[to[to >= 0]] = normalisation.applied(piece[to >= 0])
    return result

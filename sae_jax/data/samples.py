"""What a data source returns, and the steps and checks that every source shares."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import psutil
from jaxtyping import Float, Int

from sae_jax.data.config import DataConfig
from sae_jax.data.feed import Feed, resident
from sae_jax.data.normalise import normalise
from sae_jax.settings import UserError

MOST_CLASSES = 1_000_000
# Gradients grow as the square of the samples, and Adam squares them: larger ones leave single precision.
LARGEST_SAMPLE = 1e8


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

    @property
    def feed(self) -> Feed:
        """The source of training batches."""
        return self.stream or resident(self.train)

    @property
    def summary(self) -> list[float]:
        """Numbers by which the same samples are known again: counts, and statistics of both splits in their order."""
        numbers = [float(size) for size in (*self.train.shape, len(self.heldout))]
        for split in (self.train, self.heldout):
            place = np.linspace(0, 1, len(split))
            numbers += [float(split.mean()), float(split.std()), float(place @ split.mean(axis=1)) / len(split)]
        return numbers


def as_data(
    samples: np.ndarray,
    config: DataConfig = DataConfig(dataset="array"),  # noqa: B008
    name: str = "array",
    labels: np.ndarray | None = None,
) -> Data:
    """Make Data of an array: checked, split at random by `config.data_seed`, normalised.

    Args:
        samples: [samples, features] of any real dtype.
        config: heldout, data_seed, classes, samples, normalize and subtract_mean are read.
        name: what the description calls it.
        labels: class numbers, [samples].

    Raises:
        UserError: the array is empty, not 2-D, not numeric, not finite, or has too few rows to split; or the labels
            are no whole numbers, one for each sample.
    """
    samples = checked(samples, name, ("samples", "features"))
    if len(samples) < 2:
        raise UserError(
            f"{name} must hold at least 2 samples, to train on one and hold one out: got {len(samples)}; add some"
        )
    if labels is None:
        return finish(*split(samples, config), config, name, normalize="none")
    numbers = checked(labels, f"labels of {name}", ("samples",))
    if (
        len(numbers) != len(samples)
        or np.any(numbers != np.round(numbers))
        or not (0 <= numbers.min() <= numbers.max() <= MOST_CLASSES)
    ):
        raise UserError(
            f"labels of {name} must be whole numbers in [0, {MOST_CLASSES}], one for each of {len(samples)} samples: "
            f"got {len(numbers)} from {numbers.min():g} to {numbers.max():g}; number the classes from 0"
        )
    return finish(*split(samples, config), config, name, normalize="none", labels=split(numbers.astype(int), config))


def split(samples: np.ndarray, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out rows: a random part of size `config.heldout`, the same for the same `config.data_seed`."""
    order = np.random.default_rng(config.data_seed).permutation(len(samples))
    held = max(1, round(config.heldout * len(samples)))
    return samples[order[held:]], samples[order[:held]]


def finish(
    train: np.ndarray,
    heldout: np.ndarray,
    config: DataConfig,
    name: str,
    *,
    normalize: str,
    image_shape: tuple[int, int] | None = None,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> Data:
    """The last steps of every source: keep the wanted classes, limit, normalise, describe.

    Args:
        train, heldout: [samples, d_in], already apart.
        normalize: what `auto` means for this source.
        labels: class numbers of train and heldout, where the source has them.

    Raises:
        UserError: `config.classes` names classes that the source does not have, or a value is too large to train on.
    """
    classes = [np.asarray(part, np.int32) for part in labels] if labels else None
    chosen = np.ones(len(train), bool), np.ones(len(heldout), bool)
    if config.classes:
        chosen = _of_classes(config.classes, classes, name)
    train = train[chosen[0]][: config.samples or None]
    rule = normalize if config.normalize == "auto" else config.normalize
    # What is left out takes no part in the statistics.
    train, everything = normalise(train, heldout, rule, config.subtract_mean)
    largest = max(float(np.abs(part).max()) for part in (train, everything))
    if largest > LARGEST_SAMPLE:
        raise UserError(
            f"samples must lie in [-{LARGEST_SAMPLE:g}, {LARGEST_SAMPLE:g}] once they are normalised: got a value of "
            f"size {largest:.3g}; use normalize unit with output linear, or rescale them"
        )
    heldout = everything[chosen[1]]
    shape = f"{image_shape[0]}x{image_shape[1]} pixels" if image_shape else f"{train.shape[1]} features"
    how = "as they are" if rule == "none" else f"{rule} normalisation, {config.subtract_mean} mean subtracted"
    description = f"{name}: {len(train)} samples of {shape} to train on, {len(heldout)} held out; {how}"
    if classes is None:
        return Data(train, heldout, config, description, image_shape)
    trained = classes[0][chosen[0]][: config.samples or None], classes[1][chosen[1]]
    if not config.classes:
        return Data(train, heldout, config, description, image_shape, *trained)
    others = everything[~chosen[1]], classes[1][~chosen[1]]
    return Data(train, heldout, config, f"{description}; classes {config.classes}", image_shape, *trained, *others)


def _of_classes(text: str, labels: list[np.ndarray] | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which training and held-out samples belong to the classes that `text` names."""
    if labels is None:
        raise UserError(f"classes needs labelled samples: got {text!r}, and {name} has none; leave classes empty")
    available = np.intersect1d(labels[0], labels[1])
    if not len(available):
        raise UserError(f"classes needs a class with training and held-out samples: {name} has none; use more samples")
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not match:
            raise UserError(
                f"classes must be whole numbers and ranges of them, such as 0-4,7: got {text!r}; leave it empty for all"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or not {first, last} <= set(available.tolist()):
            raise UserError(
                f"classes must be among those of {name}, {available.min()} to {available.max()}, in rising order: "
                f"got {text!r}; leave it empty for all"
            )
        chosen += available[(available >= first) & (available <= last)].tolist()
    return np.isin(labels[0], chosen), np.isin(labels[1], chosen)


def check_fits(samples: int, d_in: int) -> None:
    """Refuse a number of samples whose float64 form, and a copy of it, would not fit in memory.

    Raises:
        UserError: they would not.
    """
    needed, available = 2 * 8 * samples * d_in, psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"samples must fit in memory: got {samples}, which take {needed / 2**20:,.0f} MiB "
            f"of {available / 2**20:,.0f} MiB; use fewer"
        )


def checked(values: np.ndarray, name: str, axes: tuple[str, ...]) -> np.ndarray:
    """The array as float64, or UserError where it is empty, of another rank, not numeric or not finite."""
    values = np.asarray(values)
    layout = "[" + ", ".join(axes) + "]"
    if values.dtype.kind not in "fiub":
        raise UserError(f"{name} must hold real numbers: got dtype {values.dtype}; convert it to float32")
    if values.ndim != len(axes):
        raise UserError(f"{name} must be an array {layout}: got shape {list(values.shape)}; reshape it first")
    if values.size == 0:
        raise UserError(f"{name} must not be empty: got shape {list(values.shape)}; add some numbers")
    with np.errstate(over="ignore"):  # What single precision cannot hold becomes infinite, and is refused.
        bad = ~np.isfinite(values.astype(np.float32))
    if bad.any():
        raise UserError(
            f"{name} must be finite in single precision: got {int(bad.sum())} NaN, infinite or huge values "
            f"of {values.size}; drop those samples or rescale them"
        )
    return values.astype(np.float64)

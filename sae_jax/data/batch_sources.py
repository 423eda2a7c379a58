"""Batches from anywhere else: a function of the step, or a Grain dataset."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from sae_jax.data.checks import as_array, check_fits, checked
from sae_jax.data.config import DataConfig
from sae_jax.data.feed import from_host
from sae_jax.data.normalise import Normalisation
from sae_jax.data.room import SINGLE_BYTES
from sae_jax.data.rows import Rows
from sae_jax.data.samples import Data, prepare
from sae_jax.settings import UserError, check_type, received

# Rows that are read of a source before a training, to be held out and as an excerpt each, in whole batches.
ROWS_READ_AHEAD = 4096


def holds_batches(source: Any) -> bool:
    """Whether something is a function of the step or a Grain dataset, rather than an array."""
    return not isinstance(source, type) and not hasattr(source, "__array__") and (_is_grain(source) or callable(source))


def as_stream(
    source: Any,
    heldout: np.ndarray | None = None,
    config: DataConfig = DataConfig(dataset="array"),  # noqa: B008
    normalisation: Normalisation | None = None,
) -> Data:
    """Make Data of a source of batches that a training reads step by step, and no further ahead than it must.

    Args:
        source: step -> batch [batch, d_in], the same for the same step; or a Grain dataset of batches, a MapDataset or
            an IterDataset, that is deterministic. A MapDataset begins anew at its end.
        heldout: samples [heldout, d_in]; None holds out the first batches of a function or of a MapDataset. The
            training then takes the others, those of a MapDataset again and again: its next epoch, in another order,
            would give what is held out.
        config: normalize and subtract_mean are read; statistics are those of the batches that a training begins with.
        normalisation: what is done to samples; None is what `config` says.

    Raises:
        UserError: the source gives no batches, batches of several shapes, or ends; or it is a Grain dataset of no known
            length, of which nothing can be held out.
    """
    check_type("config", config, DataConfig, "a DataConfig", "use DataConfig(dataset='array')")
    if not holds_batches(source):
        raise UserError(
            f"a source must be a function step -> batch, or a Grain dataset: got {received(source)}; for an array use "
            "as_data"
        )
    if _is_grain(source) and heldout is None and not _length(source):
        raise UserError(
            f"a Grain dataset without an end needs samples to be held out, since its own come again: got "
            f"{type(source).__name__} alone; use as_stream(dataset, heldout=ARRAY), or leave its repeat out"
        )
    name = type(source).__name__ if _is_grain(source) else getattr(source, "__name__", type(source).__name__)
    read = _reader(source, name)
    first = next(read(0))
    number = -(-ROWS_READ_AHEAD // len(first))
    excerpt = np.concatenate(list(itertools.islice(read(0), number if heldout is not None else 2 * number)))
    start, length = 0, _length(source)
    if heldout is None:
        if _is_grain(source) and length <= number:
            raise UserError(f"{name} must have more batches than are held out: got {length} and {number}; add some")
        start, heldout, excerpt = number, excerpt[: number * len(first)], excerpt[number * len(first) :]
    else:
        heldout = as_array(heldout, "held-out samples", "[samples, features]")
        check_fits(len(heldout) if heldout.ndim else 0, SINGLE_BYTES * heldout.size)
        heldout = checked(heldout, "held-out samples", ("samples", "features"))

    def batches(step: int, batch_size: int, normalisation: Normalisation | None) -> Iterator[np.ndarray]:
        if batch_size != len(first):
            raise UserError(
                f"batch_size must be that of the batches of {name}, {len(first)}: got {batch_size}; set it to that"
            )
        following = read(start + step)
        if start and length:
            following = _around(read, start, length, step)
        return following if normalisation is None else map(normalisation.apply, following)

    stream = from_host(batches, first.shape[1])
    return prepare(Rows(excerpt, f"batches of {name}", heldout, stream=stream), config, normalisation)


def _around(
    read: Callable[[int], Iterator[np.ndarray]], start: int, length: int, step: int
) -> Iterator[Float[np.ndarray, "batch d_in"]]:
    """The batches from a step on, of which there are length - start, again and again."""
    place = step % (length - start)
    while True:
        yield from itertools.islice(read(start + place), length - start - place)
        place = 0


def _length(source: Any) -> int:
    """Batches of a MapDataset that ends; 0 of any other source."""
    length = len(source) if _is_grain(source) and hasattr(source, "__getitem__") else 0
    return length if length < sys.maxsize else 0


def _is_grain(source: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "grain" for kind in type(source).__mro__)


def _reader(source: Any, name: str) -> Callable[[int], Iterator[Float[np.ndarray, "batch d_in"]]]:
    """What gives the batches of a source from a step on, each checked."""
    shapes = set[tuple[int, ...]]()

    def read(first: int) -> Iterator[np.ndarray]:
        step = first - 1
        for step, batch in zip(itertools.count(first), _from(source, first), strict=False):
            array = checked(batch, f"batch {step} of {name}", ("batch", "d_in")).astype(np.float32, copy=False)
            shapes.add(array.shape)
            if len(shapes) > 1:
                raise UserError(
                    f"batches of {name} must be of one shape: got {' and '.join(map(str, sorted(shapes)))}; drop the "
                    "remainder of an epoch"
                )
            yield array
        raise UserError(f"{name} must have a batch for every step: got none for step {step + 1}; repeat it")

    return read


def _from(source: Any, first: int) -> Iterator[Any]:
    """The batches of a source from a step on."""
    if not _is_grain(source):
        return map(source, itertools.count(first))
    if hasattr(source, "__getitem__"):
        return map(source.__getitem__, itertools.count(first))
    return itertools.islice(iter(source), first, None)

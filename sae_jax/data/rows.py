"""What a data source reads: rows that are neither split nor normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.data.feed import Feed
from sae_jax.data.truth import Truth


class Part(NamedTuple):
    """Samples [samples, d_in], an array or what gives slices of one, and their class numbers [samples] or None."""

    samples: Any
    labels: np.ndarray | None


class Rows(NamedTuple):
    """What a source reads: samples that are neither split nor normalised.

    Attributes:
        samples: [samples, d_in] of any real dtype; may be a map of a file.
        name: what the description calls them.
        heldout: [heldout, d_in], where the source itself holds some out; else a random part of the samples is.
        labels, heldout_labels: class numbers of both, where the source has them.
        names, heldout_names: what each sample is, such as a token, in words, where the source says so.
        normalize: the rule that `auto` means for this source.
        image_shape: (height, width) of a sample where it is an image.
        digest: of the file that they were read from, where it is one of the user's or brings weights.
        stream: where training batches come from, where that is not `samples`, which are then an excerpt of them.
        truth: the features that the samples are sums of, where they were made.
        warning: one line about what should be done otherwise with them; "" where nothing should.
        classes: those that are trained on, where `samples` is an excerpt of them alone.
        outputs: how many numbers of a row, its last, are targets that are made of the others; 0 where there are none.
        every: all there are, in the source's own order, where `samples` is an excerpt of them.
    """

    samples: np.ndarray
    name: str
    heldout: np.ndarray | None = None
    labels: np.ndarray | None = None
    heldout_labels: np.ndarray | None = None
    names: Sequence[str] | None = None
    heldout_names: Sequence[str] | None = None
    normalize: str = "none"
    image_shape: tuple[int, int] | None = None
    digest: str | None = None
    stream: Feed | None = None
    truth: Truth | None = None
    warning: str = ""
    classes: Sequence[int] = ()
    outputs: int = 0
    every: tuple[Part, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All samples, those that the source holds out after the others."""
        held = () if self.heldout is None else (Part(self.heldout, self.heldout_labels),)
        return self.every or (Part(self.samples, self.labels), *held)

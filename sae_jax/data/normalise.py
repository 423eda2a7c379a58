"""Normalisation: fitted on training rows, stored with what was trained, applied to new samples and undone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sae_jax.settings import UserError
from sae_jax.storage.arrays import aligned, pieces

RULES = ("auto", "ufldl", "unit", "standardize", "centre", "length", "none")
MEANS = ("auto", "patch", "global")
CLIP_STD = 3.0
SMALLEST_STD = 1e-12


class Normalisation(NamedTuple):
    """What is done to samples before an autoencoder sees them.

        y = gain clip((x - mean(x) - centre) / scale, -limit, limit) + offset

    Attributes:
        subtract_sample_mean: whether mean(x), each sample's mean over its inputs, is subtracted; it is 0 where not.
        centre, scale: float64 [d_in].
        limit: infinite where nothing is clipped.
        gain, offset: of what is clipped.
    """

    subtract_sample_mean: bool
    centre: Float[np.ndarray, " d_in"]
    scale: Float[np.ndarray, " d_in"]
    limit: float = math.inf
    gain: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether samples stay as they are."""
        plain = (self.subtract_sample_mean, self.limit, self.gain, self.offset) == (False, math.inf, 1.0, 0.0)
        return plain and not self.centre.any() and bool(np.all(self.scale == 1))

    def part(self, columns: slice) -> Normalisation:
        """That of some columns of samples, where each sample's own mean stays."""
        return self._replace(centre=self.centre[columns], scale=self.scale[columns])

    def beside(self, other: Normalisation) -> Normalisation:
        """Of rows [x | y], this one of x and another of y, of the same rule."""
        pairs = zip((self.centre, self.scale), (other.centre, other.scale), strict=True)
        centre, scale = (np.concatenate(pair) for pair in pairs)
        return self._replace(centre=centre, scale=scale)

    def apply(self, samples: np.ndarray) -> Float[np.ndarray, "samples d_in"]:
        """Samples [samples, d_in] of any real dtype, normalised in double precision, as float32."""
        result = aligned(samples.shape)
        for index, part in pieces(samples):
            result[index] = self.applied(part)
        return result

    def undo(self, normalised: np.ndarray, sample_means: np.ndarray | float = 0.0) -> Float[np.ndarray, "samples d_in"]:
        """Samples [samples, d_in] as they were before, but for what was clipped, as float32.

        Args:
            normalised: [samples, d_in].
            sample_means: what `means` says of the samples, [samples, 1]; where it is left out, they are taken to be 0.
        """
        result = np.empty(normalised.shape, np.float32)
        means = np.broadcast_to(np.asarray(sample_means, float), (len(normalised), 1))
        for index, part in pieces(normalised):
            rows = index[0] if isinstance(index, tuple) else slice(None)
            inside = (part.astype(float) - self.offset) / self.gain
            result[index] = inside * self.scale + self.centre + means[rows]
        return result

    def means(self, samples: np.ndarray) -> Float[np.ndarray, "samples 1"]:
        """What is subtracted of each sample [samples, d_in] beside the centre."""
        if not self.subtract_sample_mean:
            return np.zeros((len(samples), 1))
        return samples.mean(axis=1, keepdims=True, dtype=float)

    def applied(self, part: np.ndarray) -> np.ndarray:
        """Some samples normalised in double precision."""
        if self.is_identity:
            return part
        centred = part - self.means(part) - self.centre
        return np.clip(centred / self.scale, -self.limit, self.limit) * self.gain + self.offset


# How a Normalisation is stored beside the lanes: variable name, dimensions beside the data's own, label.
STORED = {
    "subtract_sample_mean": (
        "input_subtract_sample_mean",
        (),
        "whether each sample's mean over its inputs is subtracted of it (1) or not (0)",
    ),
    "centre": ("input_centre", ("input",), "what is subtracted of every input"),
    "scale": ("input_scale", ("input",), "what every input is divided by then"),
    "limit": ("input_limit", (), "where inputs are clipped then, at both ends"),
    "gain": ("input_gain", (), "what inputs are multiplied by then"),
    "offset": ("input_offset", (), "what is added to inputs at last"),
}


def arrays_of(normalisations: Sequence[Normalisation | None], d_in: int) -> dict[str, np.ndarray]:
    """Normalisations side by side, by the names in STORED.

    Args:
        normalisations: of several sets of samples; where one is None, or has fewer inputs, there are NaN.
        d_in: the most inputs of any.

    Returns:
        Arrays [sets] and [sets, d_in], float64.
    """
    arrays = {}
    for part, (name, dims, _) in STORED.items():
        values = np.full((len(normalisations), *(d_in for _ in dims)), np.nan)
        for i, normalisation in enumerate(normalisations):
            if normalisation is not None:
                value = np.asarray(getattr(normalisation, part), float)
                values[(i, slice(value.size)) if dims else i] = value
        arrays[name] = values
    return arrays


def of_targets(text: str) -> str:
    """What STORED says of inputs, names and labels, of a transcoder's targets."""
    return text.replace("input", "target")


def split_arrays(
    normalisations: Sequence[Normalisation | None], widths: Sequence[Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Normalisations of rows [x | y] side by side, of x by the names in STORED and of y by those of `of_targets`.

    Args:
        normalisations: as in `arrays_of`.
        widths: how many numbers x has ("input"), and y ("target"), of each.
    """
    both: dict[str, np.ndarray] = {}
    for dim, name_of in (("input", str), ("target", of_targets)):
        places = [slice(one["input"]) if dim == "input" else slice(one["input"], None) for one in widths]
        parts = [one and one.part(place) for one, place in zip(normalisations, places, strict=True)]
        arrays = arrays_of(parts, max(one[dim] for one in widths))
        both |= {name_of(name): values for name, values in arrays.items()}
    return both


def from_arrays(arrays: Mapping[str, np.ndarray], d_in: int, targets: int = 0) -> Normalisation | None:
    """The Normalisation in arrays of one set, scalars and [d_in or more]; None where they do not hold one.

    Where there are targets, it is that of rows [x | y], from what `split_arrays` made of it.
    """
    if targets:
        theirs = {name: arrays[of_targets(name)] for name, _, _ in STORED.values() if of_targets(name) in arrays}
        inputs, outputs = from_arrays(arrays, d_in), from_arrays(theirs, targets)
        return None if inputs is None or outputs is None else inputs.beside(outputs)
    if any(name not in arrays or np.isnan(arrays[name].ravel()[:1]).any() for name, _, _ in STORED.values()):
        return None
    values: dict[str, Any] = {part: np.asarray(arrays[name], float) for part, (name, _, _) in STORED.items()}
    numbers = {part: float(values[part]) for part in ("limit", "gain", "offset")}
    return Normalisation(
        bool(values["subtract_sample_mean"]), values["centre"][:d_in], values["scale"][:d_in], **numbers
    )


def identity(d_in: int) -> Normalisation:
    """Samples stay as they are."""
    return Normalisation(False, np.zeros(d_in), np.ones(d_in))


def fit(rows: np.ndarray, chosen: np.ndarray, rule: str, subtract_sample_mean: bool) -> Normalisation:
    """The normalisation of a rule, by the statistics of training rows.

        ufldl         x <- clip(x - mean, -3 std, 3 std) / (3 std) * 0.4 + 0.5, so that a sigmoid can reach it: [.1, .9]
        unit          x <- (x - mean) / std
        standardize   x_j <- (x_j - mean_j) / std_j, of every feature j
        centre        x_j <- x_j - mean_j
        length        x <- x sqrt(d_in) / mean ||x||, so that penalties mean the same on samples of any size
        none          as it is

    Args:
        rows: [samples, d_in] of any real dtype; read piece by piece.
        chosen: which of them are trained on, [samples] booleans.
        rule: one of RULES but auto.
        subtract_sample_mean: with ufldl and unit, whether mean is each sample's over its inputs; else one over all.

    Raises:
        UserError: nothing is left after the mean is subtracted.

    Source: Ng, UFLDL exercise "Sparse Autoencoder", normalizeData (which subtracts each patch's mean); Anthropic,
    "Circuits updates", April 2024 (length).
    """
    d_in = rows.shape[1]
    plain = identity(d_in)
    if rule == "none":
        return plain
    if rule == "length":
        length = np.mean(_lengths(rows)[chosen])
        if not length >= SMALLEST_STD:
            raise UserError(
                f"samples must differ from 0 to be normalised by length: got a mean length of {length:.3g}; "
                "use samples that do, or normalize none"
            )
        return plain._replace(scale=np.full(d_in, length / math.sqrt(d_in)))
    by_feature = rule in ("standardize", "centre")
    before = plain._replace(subtract_sample_mean=subtract_sample_mean and not by_feature)
    mean, variance = _moments(rows, chosen, before, by_feature)
    if rule == "centre":
        return before._replace(centre=mean)
    std = np.sqrt(variance)
    if not np.max(std) >= SMALLEST_STD:
        raise UserError(
            f"samples must differ from their mean to be normalised: got standard deviation {np.max(std):.3g}; "
            "use samples that vary, or normalize none"
        )
    # A feature that never changes carries nothing; it becomes 0.
    std = np.where(std < SMALLEST_STD, 1.0, std)
    centre = np.zeros(d_in) if before.subtract_sample_mean else mean
    if rule == "ufldl":
        return before._replace(centre=centre, scale=CLIP_STD * std, limit=1.0, gain=0.4, offset=0.5)
    return before._replace(centre=centre, scale=std)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """||x|| of every row, in double precision."""
    squares = np.zeros(len(rows))
    for index, part in pieces(rows):
        squares[index[0] if isinstance(index, tuple) else slice(None)] += np.sum(part.astype(float) ** 2, axis=-1)
    return np.sqrt(squares)


def _moments(
    rows: np.ndarray, chosen: np.ndarray, before: Normalisation, by_feature: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [d_in] of the chosen rows, of every feature or of all numbers together."""
    axis = 0 if by_feature else None

    def mean_of(values: np.ndarray | float, power: int) -> np.ndarray:
        total, number = np.zeros(rows.shape[1] if by_feature else ()), 0
        for index, part in pieces(rows):
            which = chosen[index[0] if isinstance(index, tuple) else slice(None)]
            trained = part[which]
            centred = trained.astype(float) - before.means(trained) - values
            total = total + np.sum(centred**power, axis=axis)
            number += len(centred) if by_feature else centred.size
        return np.asarray(total / number)

    mean = mean_of(0.0, 1)
    return np.broadcast_to(mean, rows.shape[1:]), np.broadcast_to(mean_of(mean, 2), rows.shape[1:])

